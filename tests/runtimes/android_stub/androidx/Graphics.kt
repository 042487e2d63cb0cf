package androidx.compose.ui.graphics

import android.graphics.Bitmap

interface ImageBitmap
interface Shape
class Color

enum class FilterQuality { None, Low, Medium, High }

fun Bitmap.asImageBitmap(): ImageBitmap = object : ImageBitmap {}
