/** Anything a user can cause and mend: `message` names the offending and the expected value, `hint` the next step. */
export class KindError extends Error {
  override readonly name: string = "KindError";

  constructor(message: string, readonly hint = "", options?: ErrorOptions) {
    super(message, options);
  }
}

/** A bundle or pack that is missing, damaged, newer or made for another base. */
export class BundleError extends KindError {
  override readonly name = "BundleError";
}

/** A class that is unknown or ambiguous. */
export class ClassNameError extends KindError {
  override readonly name = "ClassNameError";
}

/** A value that does not fit: a seed, a guidance scale. */
export class ConfigError extends KindError {
  override readonly name = "ConfigError";
}

/** A bundle without the programs that run here, or an engine that is not there or cannot hold the model. */
export class TargetError extends KindError {
  override readonly name = "TargetError";
}
