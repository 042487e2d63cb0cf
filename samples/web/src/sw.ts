/**
 * The service worker: keeps the page itself, so that it opens without a network. The model is kept by the runtime, by
 * hash. It also asks for isolation from other origins where the server does not, which threads need.
 */
declare const self: ServiceWorkerGlobalScope;

// the build puts these in place of the two names: the files of the page, and a hash of them all
declare const __SHELL__: readonly string[];
declare const __SHELL_HASH__: string;

// caches belong to the origin, where other pages may lie in other folders; no URL has a space
const CACHE_PREFIX = `kind-page/${self.registration.scope} `;
const CACHE_NAME = `${CACHE_PREFIX}${__SHELL_HASH__}`;
const UNSCOPED = /^kind-page\/[^ ]+$/; // what earlier versions of the page called theirs, whatever their folder
const scope = new URL(self.registration.scope);

self.addEventListener("install", (event) => {
  event.waitUntil(
    caches.open(CACHE_NAME).then((cache) => cache.addAll(__SHELL__.map((path) => new Request(path, { cache: "no-cache" })))),
  );
});

self.addEventListener("activate", (event) => {
  event.waitUntil(
    caches.keys().then(async (names) => {
      for (const name of names) {
        if (name !== CACHE_NAME && (await isOwn(name))) {
          await caches.delete(name);
        }
      }
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

/** Whether a cache is of this page: of its folder, or an earlier one that holds its document. */
async function isOwn(name: string): Promise<boolean> {
  if (!UNSCOPED.test(name)) {
    return name.startsWith(CACHE_PREFIX);
  }
  return (await (await caches.open(name)).match(scope.href)) !== undefined;
}

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
