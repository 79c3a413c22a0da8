/** What the browser tells about the page and the network. */
export interface PageSignals {
  /** The network is back, or somebody looks at the page again: now is the time to try. */
  awake(): void;
  offline(): void;
  /** The page is about to be frozen, cached or unloaded: timers and sockets die without a word. */
  asleep(): void;
}

/** Wrong on some machines, so never a reason to stop trying for good. */
export const isOnline = (): boolean => globalThis.navigator?.onLine !== false;

/** True outside browsers, where nothing is ever hidden. */
export const isVisible = (): boolean => globalThis.document?.visibilityState !== "hidden";

/** Watch the page until the returned function is called; outside browsers nothing ever happens. */
export function watchPage({ awake, offline, asleep }: PageSignals): () => void {
  // By hand: with an AbortSignal, Node now and then keeps a listener that was aborted (the model test saw it).
  const ends: (() => void)[] = [];
  const listen = (target: EventTarget | undefined, type: string, listener: (event: Event) => void): void => {
    target?.addEventListener?.(type, listener);
    ends.push(() => target?.removeEventListener?.(type, listener));
  };
  const page = globalThis.window;
  const { document } = globalThis;
  listen(page, "online", awake);
  listen(page, "offline", offline);
  listen(page, "pagehide", asleep);
  listen(page, "pageshow", (event) => (event as PageTransitionEvent).persisted && awake());
  listen(document, "freeze", asleep);
  listen(document, "resume", awake);
  listen(document, "visibilitychange", () => isVisible() && awake());
  return () => {
    for (const end of ends) end();
  };
}
