package androidx.activity

import android.content.Context
import android.content.Intent
import android.os.Bundle
import android.view.Window
import androidx.lifecycle.LifecycleOwner

open class ComponentActivity : Context(), LifecycleOwner {
    val window: Window = object : Window() {}
    var intent: Intent = Intent()

    protected open fun onCreate(savedInstanceState: Bundle?) = Unit

    fun finish() = Unit
}

fun ComponentActivity.enableEdgeToEdge() = Unit
