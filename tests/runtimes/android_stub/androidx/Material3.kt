package androidx.compose.material3

import androidx.compose.foundation.layout.RowScope
import androidx.compose.foundation.text.KeyboardOptions
import androidx.compose.runtime.Composable
import androidx.compose.ui.Modifier
import androidx.compose.ui.graphics.Color
import androidx.compose.ui.graphics.Shape
import androidx.compose.ui.text.input.KeyboardType

class TextStyle

class ColorScheme(val error: Color = Color(), val surface: Color = Color(), val surfaceVariant: Color = Color())
class Typography(val bodySmall: TextStyle = TextStyle())
class Shapes(val medium: Shape = object : Shape {})

object MaterialTheme {
    val colorScheme = ColorScheme()
    val typography = Typography()
    val shapes = Shapes()
}

@Composable
fun MaterialTheme(content: @Composable () -> Unit) = content()

@Composable
fun Text(text: String, modifier: Modifier = Modifier, color: Color = Color(), style: TextStyle = TextStyle()) = Unit

@Composable
fun Surface(
    modifier: Modifier = Modifier, shape: Shape = MaterialTheme.shapes.medium,
    color: Color = MaterialTheme.colorScheme.surface, content: @Composable () -> Unit,
) = content()

@Composable
fun Button(
    onClick: () -> Unit, modifier: Modifier = Modifier, enabled: Boolean = true,
    content: @Composable RowScope.() -> Unit,
) = object : RowScope {}.content()

@Composable
fun FilterChip(selected: Boolean, onClick: () -> Unit, label: @Composable () -> Unit, modifier: Modifier = Modifier) =
    label()

@Composable
fun LinearProgressIndicator(progress: () -> Float, modifier: Modifier = Modifier) = Unit

@Composable
fun OutlinedTextField(
    value: String, onValueChange: (String) -> Unit, modifier: Modifier = Modifier,
    label: @Composable (() -> Unit)? = null, isError: Boolean = false,
    keyboardOptions: KeyboardOptions = KeyboardOptions(KeyboardType.Text), singleLine: Boolean = false,
) = Unit
