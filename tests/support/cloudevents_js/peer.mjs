// A client and a subscriber of the mesh, written as a user of CloudEvents' JavaScript SDK writes them.
//
// Commands on standard input, one JSON document a line: {"send": ATTRIBUTES AND DATA, "mode": "binary"|"structured", "to": URL}.
// On standard output, one JSON document a line: {"port"} once; {"answer"} for each command; {"received", "mode", "path"} for each
// event that came in. POST /echo/MODE is answered with an event in that mode. Bytes are written as {"base64": …}.
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { CloudEvent, HTTP, Mode, emitterFor, httpTransport } from "cloudevents";

const say = (document) => process.stdout.write(JSON.stringify(document) + "\n");
const plain = (data) => (ArrayBuffer.isView(data) ? { base64: Buffer.from(data).toString("base64") } : data);

function shown(event) {
  const { data_base64, ...attributes } = event.toJSON();
  return { ...attributes, data: plain(event.data) };
}

const server = createServer((request, response) => {
  const pieces = [];
  request.on("data", (piece) => pieces.push(piece));
  request.on("end", () => {
    const bytes = Buffer.concat(pieces);
    const type = request.headers["content-type"] ?? "";
    const body = type === "application/octet-stream" ? bytes : bytes.toString("utf8");
    try {
      const event = HTTP.toEvent({ headers: request.headers, body });
      const mode = type.startsWith("application/cloudevents") ? "structured" : "binary";
      say({ received: shown(event), mode, path: request.url });
      const [, echo, wanted] = request.url.split("/");
      if (echo !== "echo") return response.writeHead(204).end();
      const reply = new CloudEvent({ id: `re-${event.id}`, source: "/peer", type: "reply", data: { to: event.id } });
      const message = HTTP[wanted](reply);
      response.writeHead(200, message.headers).end(message.body);
    } catch (error) {
      say({ fault: String(error), path: request.url });
      response.writeHead(500).end(String(error));
    }
  });
});
server.listen(0, "127.0.0.1", () => say({ port: server.address().port }));

createInterface({ input: process.stdin })
  .on("line", async (line) => {
    const { send, mode, to } = JSON.parse(line);
    const { data, ...attributes } = send;
    const bytes = data?.base64 === undefined ? data : new Uint8Array(Buffer.from(data.base64, "base64"));
    try {
      const emit = emitterFor(httpTransport(to), { binding: HTTP, mode: mode === "binary" ? Mode.BINARY : Mode.STRUCTURED });
      const { headers, body } = await emit(new CloudEvent({ ...attributes, data: bytes }));
      say({ answer: { receipt: headers["eventing-receipt"] ?? "", body } });
    } catch (error) {
      say({ answer: { fault: String(error) } });
    }
  })
  .on("close", () => process.exit(0));
