package androidx.compose.ui.unit

class Dp(val value: Float)

inline val Int.dp: Dp get() = Dp(toFloat())
