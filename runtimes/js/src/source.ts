/** Where a bundle's files come from: a folder of a server, or whatever implements `Source`. */
import { BundleError } from "./errors.js";

export type Bytes = Uint8Array<ArrayBuffer>;

export interface ReadOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called with the bytes that have arrived so far. */
  readonly onBytes?: ((received: number) => void) | undefined;
}

export interface Source {
  /** The bundle's place, for messages. */
  readonly where: string;
  /** The whole file at a relative POSIX path; throws BundleError when it is not there or breaks off. */
  read(path: string, options?: ReadOptions): Promise<Bytes>;
}

/** A server could not be reached at all, which is what being offline looks like. */
export class UnreachableError extends BundleError {}

/** The files below a URL. */
export class UrlSource implements Source {
  readonly where: string;
  readonly #base: URL;

  constructor(url: string | URL) {
    this.#base = new URL(url, globalThis.location?.href);
    if (!this.#base.pathname.endsWith("/")) {
      this.#base.pathname += "/";
    }
    this.where = this.#base.href;
  }

  async read(path: string, options: ReadOptions = {}): Promise<Bytes> {
    const url = new URL(path.split("/").map(encodeURIComponent).join("/"), this.#base);
    url.search = this.#base.search;
    const response = await this.#request(url, options.signal);
    if (response.status === 404) {
      throw new BundleError(`${this.where} has no file ${path}`, "copy the whole bundle to the server");
    }
    if (!response.ok) {
      throw new BundleError(`the server answered ${response.status} for ${url.href}`, "try again later");
    }
    return collect(response, url.href, options);
  }

  async #request(url: URL, signal: AbortSignal | undefined): Promise<Response> {
    try {
      // the caller keeps what was verified; HTTP's own cache may hold a file of the bundle before
      return await fetch(url, { cache: "no-cache", ...(signal ? { signal } : {}) });
    } catch (error) {
      signal?.throwIfAborted();
      throw new UnreachableError(
        `${url.href} cannot be reached`,
        "check the connection and, for another host, that it allows this page (CORS)",
        { cause: error },
      );
    }
  }
}

async function collect(response: Response, href: string, { signal, onBytes }: ReadOptions): Promise<Bytes> {
  const chunks: Bytes[] = [];
  let received = 0;
  try {
    for (const reader = response.body!.getReader(); ; ) {
      const { done, value } = await reader.read();
      if (done) {
        break;
      }
      chunks.push(value as Bytes);
      received += value.length;
      onBytes?.(received);
    }
  } catch (error) {
    signal?.throwIfAborted();
    throw new BundleError(`the download of ${href} broke off after ${received} bytes`, "try again", { cause: error });
  }
  const whole = new Uint8Array(received);
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.length;
  }
  return whole;
}
