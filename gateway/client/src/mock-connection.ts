import { PROTOCOL } from "./address";
import type { Message, Outgoing } from "./message";
import type { MockSocket } from "./mock-socket";

/** One client of a mock server, as the server sees it; tests see it as a `MockConnection`. */
export class Connection {
  readonly channels = new Set<string>();
  readonly received: Outgoing[] = [];
  readonly url: URL;
  readonly modern: boolean;
  readonly socket: MockSocket;
  readonly id: string;
  token: string | null;
  user: string;

  constructor(id: string, socket: MockSocket) {
    this.id = this.user = id;
    this.socket = socket;
    this.url = new URL(socket.url);
    this.modern = socket.protocols.includes(PROTOCOL);
    const shown = socket.protocols.find((one) => one.startsWith("gateway.token."));
    this.token = shown?.slice("gateway.token.".length) ?? this.url.searchParams.get("token");
  }

  send(cmd: string, param: unknown = null, channel = ""): void {
    this.write({ channel, cmd, param });
  }

  close(code: number, reason = ""): void {
    this.socket.finish(code, reason);
  }

  drop(): void {
    this.close(1006);
  }

  write({ offset, ...message }: Message): void {
    const positioned = this.modern && offset !== undefined ? { ...message, offset } : message;
    this.socket.deliver(JSON.stringify(positioned));
  }
}
