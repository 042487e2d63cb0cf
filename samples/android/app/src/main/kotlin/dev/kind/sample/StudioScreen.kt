package dev.kind.sample

import android.graphics.Bitmap
import androidx.compose.foundation.Image
import androidx.compose.foundation.layout.Arrangement
import androidx.compose.foundation.layout.Column
import androidx.compose.foundation.layout.ExperimentalLayoutApi
import androidx.compose.foundation.layout.FlowRow
import androidx.compose.foundation.layout.aspectRatio
import androidx.compose.foundation.layout.fillMaxSize
import androidx.compose.foundation.layout.fillMaxWidth
import androidx.compose.foundation.layout.padding
import androidx.compose.foundation.layout.safeDrawingPadding
import androidx.compose.foundation.rememberScrollState
import androidx.compose.foundation.text.KeyboardOptions
import androidx.compose.foundation.verticalScroll
import androidx.compose.material3.Button
import androidx.compose.material3.FilterChip
import androidx.compose.material3.LinearProgressIndicator
import androidx.compose.material3.MaterialTheme
import androidx.compose.material3.OutlinedTextField
import androidx.compose.material3.Surface
import androidx.compose.material3.Text
import androidx.compose.runtime.Composable
import androidx.compose.runtime.getValue
import androidx.compose.runtime.mutableStateOf
import androidx.compose.runtime.saveable.rememberSaveable
import androidx.compose.runtime.setValue
import androidx.compose.ui.Modifier
import androidx.compose.ui.graphics.FilterQuality
import androidx.compose.ui.graphics.asImageBitmap
import androidx.compose.ui.text.input.KeyboardType
import androidx.compose.ui.unit.dp
import androidx.lifecycle.compose.collectAsStateWithLifecycle
import androidx.lifecycle.viewmodel.compose.viewModel
import dev.kind.runtime.ClassInfo

@Composable
fun StudioScreen(studio: StudioViewModel = viewModel()) {
    val state by studio.state.collectAsStateWithLifecycle()
    var chosenId by rememberSaveable { mutableStateOf<String?>(null) }
    var seed by rememberSaveable { mutableStateOf("7") }
    val chosen = state.classes.find { it.id == chosenId } ?: state.classes.firstOrNull()

    Surface(Modifier.fillMaxSize()) {
        Column(
            Modifier.safeDrawingPadding().verticalScroll(rememberScrollState()).padding(16.dp),
            verticalArrangement = Arrangement.spacedBy(16.dp),
        ) {
            Picture(state.bitmap, chosen)
            Classes(state.classes, chosen) { chosenId = it.id }
            OutlinedTextField(
                value = seed,
                onValueChange = { seed = it },
                label = { Text("Seed") },
                isError = seed.toULongOrNull() == null,
                singleLine = true,
                keyboardOptions = KeyboardOptions(keyboardType = KeyboardType.Number),
                modifier = Modifier.fillMaxWidth(),
            )
            Action(state.progress, chosen, seed.toULongOrNull(), studio)
            state.unit?.let { Text("Drawn on $it", style = MaterialTheme.typography.bodySmall) }
            state.error?.let { Text(it, color = MaterialTheme.colorScheme.error) }
        }
    }
}

@Composable
private fun Picture(bitmap: Bitmap?, info: ClassInfo?) {
    val square = Modifier.fillMaxWidth().aspectRatio(1f)
    Surface(square, shape = MaterialTheme.shapes.medium, color = MaterialTheme.colorScheme.surfaceVariant) {
        if (bitmap != null) {
            Image(
                bitmap = bitmap.asImageBitmap(),
                contentDescription = info?.let { "Picture of ${it.name}" },
                modifier = Modifier.fillMaxSize(),
                filterQuality = FilterQuality.High,
            )
        }
    }
}

@OptIn(ExperimentalLayoutApi::class)
@Composable
private fun Classes(classes: List<ClassInfo>, chosen: ClassInfo?, onChoose: (ClassInfo) -> Unit) {
    FlowRow(horizontalArrangement = Arrangement.spacedBy(8.dp)) {
        for (info in classes) {
            FilterChip(selected = info == chosen, onClick = { onChoose(info) }, label = { Text(info.name) })
        }
    }
}

@Composable
private fun Action(progress: Float?, chosen: ClassInfo?, seed: ULong?, studio: StudioViewModel) {
    if (progress != null) {
        LinearProgressIndicator(progress = { progress }, modifier = Modifier.fillMaxWidth())
        Button(onClick = studio::stop) { Text("Stop") }
    } else {
        Button(
            onClick = { if (chosen != null && seed != null) studio.draw(chosen, seed) },
            enabled = chosen != null && seed != null,
        ) { Text("Draw") }
    }
}
