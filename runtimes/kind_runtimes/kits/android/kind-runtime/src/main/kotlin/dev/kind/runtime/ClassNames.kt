package dev.kind.runtime

import java.text.Normalizer

// Class names, as Python's `kind_core.classes` finds them: from what a user types to one class, without guessing.

/**
 * Place of a class by id, by one of its names or by all of them with commas between, to the letter; then by any of these
 * or the last words of a name, whatever case, separators or plural. Of a giant and another panda, `panda` is the giant.
 * Throws a [KindException] where none fits, or several equally well.
 */
internal fun Manifest.indexOfClass(query: String): Int {
    (classes.findExact(query) ?: classes.findPreferred(query))?.let { return it }
    val found = classes.fits(query).firstOrNull { it.isNotEmpty() }.orEmpty()
    if (found.size > 1) {
        val names = found.joinToString { classes[it].name }
        throw KindException("class '$query' fits several: $names", "Name one of them in full.")
    }
    return found.singleOrNull()
        ?: throw KindException("unknown class '$query'", "The bundle holds ${classes.joinToString { it.name }}.")
}

/** A bare noun that names two animals: people who type it mean the first, by its name or its id. */
private val PREFERRED = mapOf("panda" to ("giant panda" to "n02510455"))

/** Endings of a plural and of its singular, the likeliest first: shoes, buses, berries, wolves, knives. */
private val PLURALS = listOf("s" to "", "es" to "", "ies" to "y", "ves" to "f", "ves" to "fe")

/** Whether a form of what was asked for fits a class, the strictest first. */
private val RULES = listOf<(String, ClassInfo) -> Boolean>(::isName, ::isSingular, ::isTail)

private val SEPARATORS = Regex("[\\s_\\-/,]+")

/** The one class that is called so letter by letter: ids go before names, a name before all names together. */
private fun List<ClassInfo>.findExact(query: String): Int? {
    val text = query.composed()
    val exact = listOf<(ClassInfo) -> List<String>>({ listOf(it.id) }, { it.names }, { listOf(it.fullName) })
    return exact.firstNotNullOfOrNull { called ->
        indices.filter { index -> called(this[index]).any { it.composed() == text } }.singleOrNull()
    }
}

private fun List<ClassInfo>.findPreferred(query: String): Int? {
    val (name, id) = forms(query).firstNotNullOfOrNull(PREFERRED::get) ?: return null
    val found = fits(query).flatten().distinct().toList()
    return found.filter { this[it].id == id || isName(name, this[it]) }.singleOrNull()?.takeIf { found.size > 1 }
}

/** The classes that [query] fits under one rule after the other; each list may be empty. */
private fun List<ClassInfo>.fits(query: String): Sequence<List<Int>> = sequence {
    for (fits in RULES) for (form in forms(query)) yield(indices.filter { fits(form, this@fits[it]) })
}

private fun isName(form: String, info: ClassInfo) =
    (info.names + info.id + info.fullName).any { normalize(it) == form }

private fun isSingular(form: String, info: ClassInfo) = info.names.any { form in forms(it) }

private fun isTail(form: String, info: ClassInfo) =
    form.isNotEmpty() && info.names.any { normalize(it).endsWith(" $form") }

/** [text] as it stands, then every singular that it may be the plural of. */
private fun forms(text: String): List<String> {
    val words = normalize(text).split(" ")
    return (listOf(words.last()) + singulars(words.last())).map { (words.dropLast(1) + it).joinToString(" ") }
}

private fun singulars(word: String): List<String> {
    val length = word.codePointCount(0, word.length) // an emoji is one letter
    val plurals = PLURALS.filter { (s, _) -> word.endsWith(s) && length > s.length + 1 }
    return if (word.endsWith("ss")) emptyList() else plurals.map { (s, to) -> word.removeSuffix(s) + to }
}

/** One sequence of letters for one spelling: an accent may be part of its letter or follow it. */
private fun String.composed() = Normalizer.normalize(this, Normalizer.Form.NFC)

/** Without case, separators and ways to write the same letter. */
private fun normalize(text: String): String {
    val folded = text.compatible().split("ı").joinToString("ı", transform = ::fold).compatible()
    return folded.split(SEPARATORS).filter(String::isNotEmpty).joinToString(" ")
}

private fun String.compatible() = Normalizer.normalize(this, Normalizer.Form.NFKC)

/** Upper case makes SS of ß, which ẞ is in lower case; an ı, which has the upper case of i, is a letter of its own. */
private fun fold(text: String) = text.lowercase().uppercase().lowercase()
