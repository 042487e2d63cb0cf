package androidx.compose.foundation.layout

import androidx.compose.runtime.Composable
import androidx.compose.ui.Modifier
import androidx.compose.ui.unit.Dp

@RequiresOptIn
annotation class ExperimentalLayoutApi

interface ColumnScope
interface RowScope
interface FlowRowScope : RowScope

object Arrangement {
    interface Horizontal
    interface Vertical
    interface HorizontalOrVertical : Horizontal, Vertical

    val Start = object : Horizontal {}
    val Top = object : Vertical {}

    fun spacedBy(space: Dp): HorizontalOrVertical = object : HorizontalOrVertical {}
}

@Composable
inline fun Column(
    modifier: Modifier = Modifier, verticalArrangement: Arrangement.Vertical = Arrangement.Top,
    content: @Composable ColumnScope.() -> Unit,
) = object : ColumnScope {}.content()

@ExperimentalLayoutApi
@Composable
inline fun FlowRow(
    modifier: Modifier = Modifier, horizontalArrangement: Arrangement.Horizontal = Arrangement.Start,
    content: @Composable FlowRowScope.() -> Unit,
) = object : FlowRowScope {}.content()

fun Modifier.aspectRatio(ratio: Float, matchHeightConstraintsFirst: Boolean = false) = this

fun Modifier.fillMaxSize(fraction: Float = 1f) = this

fun Modifier.fillMaxWidth(fraction: Float = 1f) = this

fun Modifier.padding(all: Dp) = this

fun Modifier.safeDrawingPadding() = this
