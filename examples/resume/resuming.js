// A WebSocket for supabase-js whose channels go on where they were cut.
//
//   createClient(url, key, { realtime: { transport: resuming() } })
//
// Each change says its position in the log. This remembers the last one of each channel, and adds
// it when the client joins the channel again. A position that is too old is forgotten: the channel
// is told so (CHANNEL_ERROR, code resync_required), and joins anew by itself.

export function resuming(WebSocketClass = globalThis.WebSocket) {
  const positions = new Map()

  function hear([, , topic, event, payload]) {
    const { response } = payload
    if (event === 'postgres_changes') positions.set(topic, payload.data.position)
    else if (event !== 'phx_reply') return
    else if (topic === 'phoenix') {
      for (const [name, position] of Object.entries(response?.positions ?? {})) {
        positions.set(name, position)
      }
    } else if (response?.code === 'resync_required') positions.delete(topic)
    else if (response?.position) positions.set(topic, response.position)
  }

  function say(message) {
    const [, , topic, event, payload] = message
    const position = positions.get(topic)
    if (event === 'phx_join' && position) payload.config.resume = { from: position }
    if (event === 'phx_leave') positions.delete(topic)
    return message
  }

  return class extends WebSocketClass {
    constructor(...given) {
      super(...given)
      this.addEventListener('message', ({ data }) => {
        if (typeof data === 'string') hear(JSON.parse(data))
      })
    }

    send(data) {
      super.send(typeof data === 'string' ? JSON.stringify(say(JSON.parse(data))) : data)
    }
  }
}
