package androidx.compose.runtime.saveable

import androidx.compose.runtime.Composable
import androidx.compose.runtime.MutableState

@Composable
fun <T> rememberSaveable(vararg inputs: Any?, init: () -> MutableState<T>): MutableState<T> = init()
