/** With less time left than this, a token is renewed by connecting anew. */
const SHORTEST = 1000;

/** Renew when this much of the remaining life is over. */
const PORTION = 0.8;

/** Milliseconds after which a JWT should be renewed; null when it does not tell, or is as good as over by our clock. */
export function renewalDelay(token: string): number | null {
  try {
    const payload = token.split(".")[1] ?? "";
    const { exp } = JSON.parse(atob(payload.replace(/-/g, "+").replace(/_/g, "/")));
    const remaining = exp * 1000 - Date.now();
    return remaining > SHORTEST ? remaining * PORTION : null;
  } catch {
    return null;
  }
}
