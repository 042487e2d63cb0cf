/**
 * The service worker: keeps the page itself, so that it opens without a network. The model is kept by the runtime, by
 * hash. It also asks for isolation from other origins where the server does not, which threads need.
 */
declare const self: ServiceWorkerGlobalScope;

// the build puts these in place of the two names: the files of the page, and a hash of them all
declare const __SHELL__: readonly string[];
declare const __SHELL_HASH__: string;

const CACHE_PREFIX = "kind-page/";
const CACHE_NAME = `${CACHE_PREFIX}${__SHELL_HASH__}`;
const scope = new URL(self.registration.scope);

self.addEventListener("install", (event) => {
  event.waitUntil(
    caches.open(CACHE_NAME).then((cache) => cache.addAll(__SHELL__.map((path) => new Request(path, { cache: "no-cache" })))),
  );
});

self.addEventListener("activate", (event) => {
  event.waitUntil(
    caches.keys().then((names) => {
      const old = names.filter((name) => name.startsWith(CACHE_PREFIX) && name !== CACHE_NAME);
      return Promise.all(old.map((name) => caches.delete(name)));
    }),
  );
});

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  const path = url.pathname.slice(scope.pathname.length);
  const isPage = url.origin === scope.origin && url.pathname.startsWith(scope.pathname);
  if (event.request.method === "GET" && isPage && (path === "" || path.startsWith("assets/") || __SHELL__.includes(path))) {
    event.respondWith(answer(event.request));
  }
});

async function answer(request: Request): Promise<Response> {
  const cache = await caches.open(CACHE_NAME);
  // `?class=…` is for the page, not for its server
  const kept = await cache.match(request, { ignoreSearch: true });
  return isolate(kept ?? (await fetch(request)));
}

function isolate(response: Response): Response {
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}

export {};
