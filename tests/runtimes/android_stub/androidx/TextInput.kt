package androidx.compose.ui.text.input

enum class KeyboardType { Text, Number }
