package dev.kind.sample

import android.app.Application
import android.graphics.Bitmap
import androidx.lifecycle.AndroidViewModel
import androidx.lifecycle.viewModelScope
import dev.kind.runtime.ClassInfo
import dev.kind.runtime.KindBundle
import dev.kind.runtime.KindException
import dev.kind.runtime.KindGenerator
import dev.kind.runtime.UnitStore
import dev.kind.runtime.fromAssets
import dev.kind.runtime.of
import dev.kind.runtime.openGenerator
import dev.kind.runtime.toBitmap
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.flow.update
import kotlinx.coroutines.launch
import kotlinx.coroutines.withContext

/** What the screen shows; [unit] computes, [progress] is null while nothing is drawn. */
data class StudioState(
    val classes: List<ClassInfo> = emptyList(),
    val unit: String? = null,
    val bitmap: Bitmap? = null,
    val progress: Float? = null,
    val error: String? = null,
)

class StudioViewModel(application: Application) : AndroidViewModel(application) {
    private val _state = MutableStateFlow(StudioState())
    val state: StateFlow<StudioState> = _state.asStateFlow()

    private var generator: KindGenerator? = null
    private var drawing: Job? = null

    init {
        attempt {
            val bundle = withContext(Dispatchers.IO) { KindBundle.fromAssets(getApplication(), "model.kind") }
            val opened = bundle.openGenerator(store = UnitStore.of(getApplication()))
            generator = opened
            _state.update { it.copy(classes = bundle.manifest.classes, unit = opened.unit.toString()) }
        }
    }

    fun draw(info: ClassInfo, seed: ULong) {
        val generator = generator ?: return
        val previous = drawing
        drawing = attempt {
            previous?.cancelAndJoin()
            _state.update { it.copy(progress = 0f, error = null) }
            try {
                generator.generate(info.id, seed).collect { preview ->
                    val bitmap = preview.picture.toBitmap()
                    _state.update { it.copy(bitmap = bitmap, progress = preview.step / preview.steps.toFloat()) }
                }
            } finally {
                _state.update { it.copy(progress = null) }
            }
        }
    }

    fun stop() {
        drawing?.cancel()
    }

    override fun onCleared() {
        generator?.close()
    }

    private fun attempt(work: suspend () -> Unit) = viewModelScope.launch {
        try {
            work()
        } catch (error: KindException) {
            _state.update { it.copy(error = "${error.message}. ${error.hint}") }
        }
    }
}
