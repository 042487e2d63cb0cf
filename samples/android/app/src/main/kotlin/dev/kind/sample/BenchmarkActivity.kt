package dev.kind.sample

import android.os.Bundle
import android.view.WindowManager
import androidx.activity.ComponentActivity
import androidx.lifecycle.lifecycleScope
import dev.kind.runtime.Benchmark
import dev.kind.runtime.KindBundle
import dev.kind.runtime.describeDevice
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.launch
import kotlinx.coroutines.withContext
import java.io.File

/**
 * Measures the bundle in the folder of the extra `bundle` and writes the results to the file of the extra `out`, or why
 * it could not to `out` + `.error`. `class` and `runtime` are optional.
 */
class BenchmarkActivity : ComponentActivity() {
    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        val out = File(requireNotNull(intent.getStringExtra("out")) { "the extra 'out' is missing" })
        lifecycleScope.launch {
            try {
                publish(out, measure())
            } catch (error: Exception) {
                publish(File("$out.error"), error.message ?: error.toString())
            }
            finish()
        }
    }

    private suspend fun measure(): String {
        val folder = requireNotNull(intent.getStringExtra("bundle")) { "the extra 'bundle' is missing" }
        val runtime = intent.getStringExtra("runtime") ?: "onnx"
        require(runtime == "onnx") { "this app runs onnx, not $runtime" }
        val bundle = withContext(Dispatchers.IO) { KindBundle.open(File(folder)) }
        return Benchmark(bundle).run(describeDevice(this), intent.getStringExtra("class")).toString(2)
    }

    /** Whole or not at all: whoever waits for the file may read it as soon as it is there. */
    private suspend fun publish(file: File, text: String) = withContext(Dispatchers.IO) {
        file.parentFile?.mkdirs()
        val partial = File("$file.partial")
        partial.writeText(text)
        check(partial.renameTo(file)) { "cannot rename $partial" }
    }
}
