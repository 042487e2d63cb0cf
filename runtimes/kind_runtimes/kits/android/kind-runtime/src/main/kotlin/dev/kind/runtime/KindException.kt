package dev.kind.runtime

/** What went wrong, with the offending and the expected value; [hint] says the next step. */
class KindException(message: String, val hint: String, cause: Throwable? = null) : Exception(message, cause)
