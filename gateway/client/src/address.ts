/** Where a connection goes, and what it shows there. */
export interface Address {
  url: string;
  protocols: string[];
}

export const PROTOCOL = "gateway.v1.json";

/** Make a path or an http(s) URL a WebSocket URL; older browsers take no other. */
export function resolve(url: string): string {
  const base = globalThis.document?.baseURI;
  return new URL(url, base).href.replace(/^http/, "ws");
}

export function addressOf(url: string, token?: string | null): Address {
  return { url: resolve(url), protocols: token ? [PROTOCOL, `gateway.token.${token}`] : [PROTOCOL] };
}

export const sameAddress = (a: Address | null, b: Address): boolean =>
  a?.url === b.url && a.protocols.join() === b.protocols.join();
