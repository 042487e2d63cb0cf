package androidx.compose.foundation

import androidx.compose.runtime.Composable
import androidx.compose.ui.Modifier
import androidx.compose.ui.graphics.FilterQuality
import androidx.compose.ui.graphics.ImageBitmap

class ScrollState

@Composable
fun rememberScrollState(initial: Int = 0) = ScrollState()

fun Modifier.verticalScroll(state: ScrollState, enabled: Boolean = true) = this

@Composable
fun Image(
    bitmap: ImageBitmap, contentDescription: String?, modifier: Modifier = Modifier,
    filterQuality: FilterQuality = FilterQuality.Low,
) = Unit
