// Loaded before Portkey's gateway, which has no option for its address: its server is for this
// machine alone.
import { Server } from "node:net";

const listen = Server.prototype.listen;

Server.prototype.listen = function listenOnLoopback(at, ...rest) {
  const port = typeof at === "object" ? at.port : at;
  const isReady = rest.find((argument) => typeof argument === "function");
  return listen.call(this, { port, host: "127.0.0.1" }, isReady);
};
