import { GatewayError } from "./errors";

/** Where a connection goes, and what it shows there. */
export interface Address {
  url: string;
  protocols: string[];
}

export const PROTOCOL = "gateway.v1.json";

/** What a subprotocol may hold, and a head has room for. */
const TOKEN = /^[\w!#$%&'*+.^`|~-]{1,16384}$/;

/** A URL or token with which no connection can be tried: a page of HTML, say, that a function took for one. */
export class Unusable extends GatewayError {}

/** Make a path or an http(s) URL a WebSocket URL; older browsers take no other. Throws `Unusable`. */
export function resolve(url: string): string {
  const base = globalThis.document?.baseURI ?? globalThis.location?.href;
  try {
    const found = new URL(url, base).href.replace(/^http/, "ws");
    // What is no URL at all would be a path beside the page.
    if (/^wss?:/.test(found) && !/[<>]|^(undefined|null)$/.test(url)) return found;
  } catch {}
  const needed = base ? "a URL" : "a full URL, since there is no page,";
  throw new Unusable("invalid-url", `expected ${needed} of a gateway, got '${String(url).slice(0, 200)}'`);
}

/** Return a token as it is. Throws `Unusable`, without the token: it may be a secret for all that. */
export function usable(token: string): string {
  if (typeof token === "string" && TOKEN.test(token)) return token;
  throw new Unusable("invalid-token", `expected a token, got a ${typeof token} that cannot be one`);
}

/** Throws `Unusable`. */
export function addressOf(url: string, token?: string | null): Address {
  const shown = token ? [`gateway.token.${usable(token)}`] : [];
  return { url: resolve(url), protocols: [PROTOCOL, ...shown] };
}

export const sameAddress = (a: Address | null, b: Address): boolean =>
  a?.url === b.url && a.protocols.join() === b.protocols.join();
