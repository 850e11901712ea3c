-- SPDX-License-Identifier: Apache-2.0
--
-- Wireshark dissector of what the two nodes of a pair say to each other: sync (TCP, by itself or within TLS),
-- heartbeats (UDP, on every path) and the conduit's option (Geneve). The specification of sync and conduit is
-- flexha/core/SYNC.md, that of heartbeats csrc/heartbeat_wire.h; how to use this file: README.md beside it.
--
--     tshark -X lua_script:flexha.lua -o tls.keylog_file:keys.log -r xc.pcap
--
-- What a peer sends is never trusted to be what it should: reading goes by bounds, a frame that breaks them
-- or the specification gets an expert info that says where and why, and the next frame is read as if nothing
-- had been. What the specification does not name is shown as it is, since a later version may send it.

local MAP_DEPTH_MAX = 8
local VALUES_MAX = 8192 -- of one frame
local LENGTH_BYTES = 4

local role_names = { [0] = "INIT", "JOINING", "PASSIVE", "ACTIVE", "MAINTENANCE", "FAULT" }
local node_names = { [0] = "a", "b" }

-- Another dissector's turn. What it finds malformed it has shown by itself; here it is no error.
local function call(dissector, tvb, pinfo, tree)
  local ok, length = pcall(dissector.call, dissector, tvb, pinfo, tree)
  return ok and length or tvb:len()
end

-- ---- fields of sync ---------------------------------------------------------------------------------------
local sync = Proto("flexha_sync", "flexha sync")

local op_names = { [0] = "OPEN", "DELETE", "STATE", "REST" }
local state_names = {
  [0] = "NONE", "NEW", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSING", "TIME_WAIT", "CLOSED",
}
local origin_names = { "a", "b" }
local form_names = { [0] = "SNAT", "STATIC", "NONE" }
local proto_names = { [1] = "icmp", [6] = "tcp", [17] = "udp", [47] = "gre", [50] = "esp", [58] = "icmpv6",
  [132] = "sctp" }

local f = {
  length = ProtoField.uint32("flexha_sync.length", "Length"),
  t = ProtoField.string("flexha_sync.t", "Message"),
  v_min = ProtoField.uint64("flexha_sync.v_min", "Lowest version"),
  v_max = ProtoField.uint64("flexha_sync.v_max", "Highest version"),
  pair = ProtoField.string("flexha_sync.pair", "Pair"),
  node = ProtoField.uint64("flexha_sync.node", "Node", base.DEC, node_names),
  inc = ProtoField.uint64("flexha_sync.inc", "Incarnation"),
  term = ProtoField.uint64("flexha_sync.term", "Term"),
  passes_on = ProtoField.uint64("flexha_sync.passes_on", "Passes on what waits"),
  moves = ProtoField.uint64("flexha_sync.moves", "Moves of late"),
  adopts = ProtoField.uint64("flexha_sync.adopts", "Takes offers"),
  records = ProtoField.bytes("flexha_sync.records", "Sessions"),
  taken = ProtoField.uint64("flexha_sync.taken", "Sessions taken"),
  refused_n = ProtoField.uint64("flexha_sync.adopted.refused", "Sessions refused"),
  role = ProtoField.uint64("flexha_sync.role", "Role", base.DEC, role_names),
  stream = ProtoField.string("flexha_sync.stream", "Stream"),
  stream_inc = ProtoField.uint64("flexha_sync.stream.inc", "Incarnation"),
  stream_term = ProtoField.uint64("flexha_sync.stream.term", "Term"),
  seq = ProtoField.uint64("flexha_sync.seq", "Number"),
  shards = ProtoField.uint64("flexha_sync.shards", "Shards", base.HEX),
  repair = ProtoField.uint64("flexha_sync.repair", "Repair"),
  differ = ProtoField.uint64("flexha_sync.differ", "Shards that differ", base.HEX),
  sums = ProtoField.bytes("flexha_sync.sums", "Sums"),
  counts = ProtoField.bytes("flexha_sync.counts", "Counts"),
  digest = ProtoField.string("flexha_sync.digest", "Digest"),
  digest_shard = ProtoField.uint8("flexha_sync.digest.shard", "Shard"),
  digest_sum = ProtoField.uint64("flexha_sync.digest.sum", "Sum", base.HEX),
  digest_count = ProtoField.uint32("flexha_sync.digest.count", "Sessions"),
  reason = ProtoField.string("flexha_sync.reason", "Reason"),
  step = ProtoField.string("flexha_sync.keys.step", "Step"),
  cert = ProtoField.bytes("flexha_sync.keys.cert", "Certificate"),
  hb = ProtoField.bytes("flexha_sync.keys.hb", "Heartbeat key"),
  part = ProtoField.string("flexha_sync.equal", "Configuration"),
  not_taken = ProtoField.string("flexha_sync.refused", "Record not taken"),
  refused = ProtoField.string("flexha_sync.keys.refused", "Refused"),
  section = ProtoField.string("flexha_sync.section", "Section"),
  op = ProtoField.uint64("flexha_sync.section.op", "Kind", base.DEC, op_names),
  n = ProtoField.uint64("flexha_sync.section.n", "Records"),
  family = ProtoField.uint64("flexha_sync.section.f", "Address family"),
  column = ProtoField.string("flexha_sync.column", "Column"),
  column_width = ProtoField.uint32("flexha_sync.column.width", "Bytes of an element"),
  column_constant = ProtoField.bool("flexha_sync.column.constant", "One element for all records"),
  column_data = ProtoField.bytes("flexha_sync.column.data", "Elements"),
  session = ProtoField.string("flexha_sync.session", "Session"),
  unknown = ProtoField.string("flexha_sync.unknown", "Not in the specification"),
}

-- A session's own fields, by column. `put` adds the element in `range` to a tree.
local function le(field)
  return function(tree, range) tree:add_le(field, range) end
end
local function be(field)
  return function(tree, range) tree:add(field, range) end
end
local function address(name, label)
  local v4 = ProtoField.ipv4("flexha_sync.session." .. name, label)
  local v6 = ProtoField.ipv6("flexha_sync.session." .. name .. "_v6", label)
  f["s_" .. name], f["s_" .. name .. "_v6"] = v4, v6
  return function(tree, range) tree:add(range:len() == 4 and v4 or v6, range) end
end
local function own(name, field)
  f["s_" .. name] = field
  return field
end
local function s(name) return "flexha_sync.session." .. name end

local windows = {}
for i, side in ipairs({ "inside", "outside" }) do
  windows[i] = {
    { 0, 4, own("win_end_" .. i, ProtoField.uint32(s(side .. ".end"), side .. ": end of what was sent")) },
    { 4, 4, own("win_max_end_" .. i, ProtoField.uint32(s(side .. ".max_end"), side .. ": may send to")) },
    { 8, 4, own("win_max_" .. i, ProtoField.uint32(s(side .. ".max_win"), side .. ": largest window")) },
    { 12, 1, own("win_scale_" .. i, ProtoField.uint8(s(side .. ".scale"), side .. ": window scale")) },
    { 13, 1, own("win_flags_" .. i, ProtoField.uint8(s(side .. ".flags"), side .. ": flags", base.HEX)) },
  }
end
local counters = {
  own("packets_out", ProtoField.uint64(s("packets_out"), "Packets outbound")),
  own("packets_in", ProtoField.uint64(s("packets_in"), "Packets inbound")),
  own("bytes_out", ProtoField.uint64(s("bytes_out"), "Bytes outbound")),
  own("bytes_in", ProtoField.uint64(s("bytes_in"), "Bytes inbound")),
}

-- Shown as one number, by its low half.
local id = own("id", ProtoField.uint64(s("id"), "Id", base.HEX))
local function whole_id(tree, range, have, i)
  local high = have("id_high", i)
  if high then
    tree:add(id, range, UInt64(range:le_uint(), high:le_uint()))
  end
end

-- In the order in which they are shown; bytes of an element for IPv4 and IPv6.
local columns = {
  { "id_low", 4, 4, whole_id },
  { "id_high", 4, 4, function() end },
  { "origin", 2, 2, le(own("origin", ProtoField.uint16(s("origin"), "Made by", base.DEC, origin_names))) },
  { "version", 4, 4, le(own("version", ProtoField.uint32(s("version"), "Version"))) },
  { "form", 1, 1, be(own("form", ProtoField.uint8(s("form"), "Translation", base.DEC, form_names))) },
  { "proto", 1, 1, be(own("proto", ProtoField.uint8(s("proto"), "Protocol", base.DEC, proto_names))) },
  { "state", 1, 1, be(own("state", ProtoField.uint8(s("state"), "State", base.DEC, state_names))) },
  { "flags", 1, 1, be(own("flags", ProtoField.uint8(s("flags"), "Flags", base.HEX))) },
  { "in_port", 1, 1, be(own("in_port", ProtoField.uint8(s("in_port"), "Inside port of the node"))) },
  { "out_port", 1, 1, be(own("out_port", ProtoField.uint8(s("out_port"), "Outside port of the node"))) },
  { "rule", 2, 2, le(own("rule", ProtoField.uint16(s("rule"), "Rule"))) },
  { "inside", 4, 16, address("inside", "Inside address") },
  { "inside_port", 2, 2, be(own("inside_port", ProtoField.uint16(s("inside_port"), "Inside port"))) },
  { "remote", 4, 16, address("remote", "Remote address") },
  { "remote_port", 2, 2, be(own("remote_port", ProtoField.uint16(s("remote_port"), "Remote port"))) },
  { "external", 4, 16, address("external", "External address") },
  { "external_port", 2, 2, be(own("external_port", ProtoField.uint16(s("external_port"), "External port"))) },
  { "remaining_ms", 4, 4, le(own("remaining_ms", ProtoField.uint32(s("remaining_ms"), "Remaining ms"))) },
  { "win", 28, 28, function(tree, range)
    for i = 1, 2 do
      for _, part in ipairs(windows[i]) do
        tree:add_le(part[3], range((i - 1) * 14 + part[1], part[2]))
      end
    end
  end },
  { "counters", 32, 32, function(tree, range)
    for i, field in ipairs(counters) do
      tree:add_le(field, range((i - 1) * 8, 8))
    end
  end },
}
local key = "id_low id_high origin form proto inside remote inside_port remote_port"
local required = {
  [0] = key .. " version state flags in_port out_port external external_port",
  [1] = key,
  [2] = key .. " version state flags",
  [3] = key .. " version state flags",
}
local column_named = {}
for _, column in ipairs(columns) do
  column_named[column[1]] = column
end

local fields = {}
for _, field in pairs(f) do
  table.insert(fields, field)
end
sync.fields = fields

local MALFORMED, ERROR = expert.group.MALFORMED, expert.severity.ERROR
local e = {
  frame = ProtoExpert.new("flexha_sync.bad_frame", "This frame ends the connection", MALFORMED, ERROR),
  field = ProtoExpert.new("flexha_sync.bad_field", "Not as the specification has it", MALFORMED, ERROR),
  later = ProtoExpert.new("flexha_sync.later", "Of a later version: to be skipped", expert.group.UNDECODED,
    expert.severity.NOTE),
  differs = ProtoExpert.new("flexha_sync.differs", "The tables differ", expert.group.RESPONSE_CODE,
    expert.severity.WARN),
  closes = ProtoExpert.new("flexha_sync.closes", "The connection ends", expert.group.SEQUENCE,
    expert.severity.CHAT),
}
sync.experts = { e.frame, e.field, e.later, e.differs, e.closes }

sync.prefs.port = Pref.uint("TCP port", 47851, "[ha] sync_port")
sync.prefs.frame_max = Pref.uint("Longest frame", 4194304, "a longer one ends the connection")
sync.prefs.records = Pref.uint("Sessions shown", 16, "so many of each section are shown one by one")

-- ---- MessagePack ------------------------------------------------------------------------------------------
-- A value is { kind, range, value }; a map has `items`, a list of { key, value }, and an array is a list in
-- `items`. Integers are UInt64, or negative Lua numbers of kind "int".
local function fault(...)
  error({ fault = string.format(...) }, 0)
end

local reader = {}
reader.__index = reader

function reader.new(tvb, first)
  return setmetatable({ tvb = tvb, at = first, left = VALUES_MAX }, reader)
end

function reader:take(n)
  if n > self.tvb:len() - self.at then
    fault("byte %d: %d bytes are said to follow, %d do", self.at, n, self.tvb:len() - self.at)
  end
  local range = self.tvb(self.at, n)
  self.at = self.at + n
  return range
end

function reader:uint(n)
  return self:take(n):uint()
end

function reader:sized(kind, n)
  if n == 0 then
    return kind, kind == "str" and "" or nil
  end
  local range = self:take(n)
  return kind, kind == "str" and range:string(ENC_UTF_8) or range
end

function reader:many(kind, n, depth)
  local items = {}
  if n * (kind == "map" and 2 or 1) > self.tvb:len() - self.at then
    fault("byte %d: %s of %d, in the %d bytes that are left", self.at, kind, n, self.tvb:len() - self.at)
  end
  for i = 1, n do
    local first = self:value(depth + 1)
    items[i] = kind == "map" and { key = first, value = self:value(depth + 1) } or first
  end
  return kind, items
end

function reader:extension(n)
  self:take(1)
  return self:sized("ext", n)
end

local fixed = {
  [0xc0] = function() return "nil" end,
  [0xc2] = function() return "bool", false end,
  [0xc3] = function() return "bool", true end,
  [0xc4] = function(r) return r:sized("bin", r:uint(1)) end,
  [0xc5] = function(r) return r:sized("bin", r:uint(2)) end,
  [0xc6] = function(r) return r:sized("bin", r:uint(4)) end,
  [0xc7] = function(r) return r:extension(r:uint(1)) end,
  [0xc8] = function(r) return r:extension(r:uint(2)) end,
  [0xc9] = function(r) return r:extension(r:uint(4)) end,
  [0xca] = function(r) return "float", r:take(4):float() end,
  [0xcb] = function(r) return "float", r:take(8):float() end,
  [0xcc] = function(r) return "uint", UInt64(r:uint(1)) end,
  [0xcd] = function(r) return "uint", UInt64(r:uint(2)) end,
  [0xce] = function(r) return "uint", UInt64(r:uint(4)) end,
  [0xcf] = function(r) return "uint", r:take(8):uint64() end,
  [0xd0] = function(r) return "int", r:take(1):int() end,
  [0xd1] = function(r) return "int", r:take(2):int() end,
  [0xd2] = function(r) return "int", r:take(4):int() end,
  [0xd3] = function(r) return "int", r:take(8):int64():tonumber() end,
  [0xd4] = function(r) return r:extension(1) end,
  [0xd5] = function(r) return r:extension(2) end,
  [0xd6] = function(r) return r:extension(4) end,
  [0xd7] = function(r) return r:extension(8) end,
  [0xd8] = function(r) return r:extension(16) end,
  [0xd9] = function(r) return r:sized("str", r:uint(1)) end,
  [0xda] = function(r) return r:sized("str", r:uint(2)) end,
  [0xdb] = function(r) return r:sized("str", r:uint(4)) end,
  [0xdc] = function(r, depth) return r:many("array", r:uint(2), depth) end,
  [0xdd] = function(r, depth) return r:many("array", r:uint(4), depth) end,
  [0xde] = function(r, depth) return r:many("map", r:uint(2), depth) end,
  [0xdf] = function(r, depth) return r:many("map", r:uint(4), depth) end,
}

function reader:value(depth)
  if depth > MAP_DEPTH_MAX then
    fault("byte %d: more than %d levels", self.at, MAP_DEPTH_MAX)
  end
  self.left = self.left - 1
  if self.left < 0 then
    fault("byte %d: more than %d values", self.at, VALUES_MAX)
  end
  local first = self.at
  local byte = self:uint(1)
  local kind, value
  if byte < 0x80 then
    kind, value = "uint", UInt64(byte)
  elseif byte < 0x90 then
    kind, value = self:many("map", byte - 0x80, depth)
  elseif byte < 0xa0 then
    kind, value = self:many("array", byte - 0x90, depth)
  elseif byte < 0xc0 then
    kind, value = self:sized("str", byte - 0xa0)
  elseif byte >= 0xe0 then
    kind, value = "int", byte - 0x100
  elseif fixed[byte] then
    kind, value = fixed[byte](self, depth)
  else
    fault("byte %d: 0x%02x begins no value", first, byte)
  end
  return { kind = kind, value = value, range = self.tvb(first, self.at - first) }
end

-- As a person would write it, cut to what fits a line.
local function written(v)
  if v.kind == "map" or v.kind == "array" then
    return string.format("%s of %d", v.kind, #v.value)
  elseif v.kind == "bin" or v.kind == "ext" then
    return string.format("%s of %d bytes", v.kind, v.value and v.value:len() or 0)
  elseif v.kind == "str" then
    return string.format("%q", v.value:sub(1, 64))
  end
  return v.kind == "nil" and "nil" or tostring(v.value)
end

local function keyed(map)
  local by = {}
  for _, item in ipairs(map.value) do
    if item.key.kind == "str" then
      by[item.key.value] = item.value
    end
  end
  return by
end

-- ---- values of messages -----------------------------------------------------------------------------------
-- Each takes (tree, value, context) and adds the value, or an expert info why it cannot be one.
local function wrong(tree, key, v, wanted)
  tree:add(f.unknown, v.range, string.format("%s: %s", key, written(v)))
    :add_proto_expert_info(e.field, string.format("%s is no %s", key, wanted))
end

local function unsigned(field)
  return function(tree, v, key)
    if v.kind ~= "uint" then
      return wrong(tree, key, v, "unsigned number")
    end
    tree:add(field, v.range, v.value)
  end
end

local function text(field)
  return function(tree, v, key)
    if v.kind ~= "str" then
      return wrong(tree, key, v, "text")
    end
    tree:add(field, v.range, v.value)
  end
end

local function members(shards)
  local list = {}
  for word, bits in ipairs({ shards:lower(), shards:higher() }) do
    for bit = 0, 31 do
      if bit32.extract(bits, bit) == 1 then
        table.insert(list, (word - 1) * 32 + bit)
      end
    end
  end
  return list
end

local function shards(field)
  return function(tree, v, key)
    if v.kind ~= "uint" then
      return wrong(tree, key, v, "set of shards")
    end
    local list = members(v.value)
    local item = tree:add(field, v.range, v.value)
    item:append_text(#list == 64 and " (all)" or string.format(" (%d: %s)", #list, table.concat(list, " ")))
    return item, list
  end
end

local function stream(tree, v, key)
  if v.kind == "nil" then
    tree:add(f.stream, v.range, "none")
    return
  end
  local by = v.kind == "map" and keyed(v) or {}
  if not (by.inc and by.term and by.inc.kind == "uint" and by.term.kind == "uint") then
    return wrong(tree, key, v, "stream")
  end
  local item = tree:add(f.stream, v.range, string.format("%s, term %s", by.inc.value, by.term.value))
  item:add(f.stream_inc, by.inc.range, by.inc.value)
  item:add(f.stream_term, by.term.range, by.term.value)
end

local function blob(field)
  return function(tree, v, key)
    if v.kind ~= "bin" then
      return wrong(tree, key, v, "byte string")
    end
    tree:add(field, v.value or v.range)
  end
end

local function differing(tree, v, key)
  local item, list = shards(f.differ)(tree, v, key)
  if item and #list > 0 then
    item:add_proto_expert_info(e.differs, string.format("%d shards differ", #list))
  end
end

-- Digests of what both configurations must have in common.
local function parts(tree, v, key)
  if v.kind ~= "map" then
    return wrong(tree, key, v, "map of digests")
  end
  for _, item in ipairs(v.value) do
    if item.key.kind == "str" and item.value.kind == "bin" then
      tree:add(f.part, item.value.range, string.format("%s: %s", item.key.value, item.value.value
        and item.value.value:bytes():tohex(true) or ""))
    else
      wrong(tree, key, item.value, "digest")
    end
  end
end

-- Records that were not taken: how far before the ack's number their batch is, and their place in it.
local function not_taken(tree, v, key)
  local size = v.kind == "bin" and v.value and v.value:len() or 0
  if size == 0 or size % 4 ~= 0 then
    return wrong(tree, key, v, "list of 4 bytes each")
  end
  for i = 0, size - 4, 4 do
    local entry = v.value(i, 4)
    tree:add(f.not_taken, entry, string.format("record %d of number %d before this one",
      entry(2, 2):le_uint(), entry(0, 2):le_uint()))
  end
end

-- Both columns of a digest, as one line for each shard.
local function digests(tree, by)
  local set, sums, counts = by.shards, by.sums, by.counts
  if not (set and sums and counts and set.kind == "uint" and sums.kind == "bin" and counts.kind == "bin") then
    return
  end
  local list = members(set.value)
  local have = { sums.value and sums.value:len() or 0, counts.value and counts.value:len() or 0 }
  if have[1] ~= 8 * #list or have[2] ~= 4 * #list then
    local said = string.format("%d shards: %d bytes of sums, %d of counts", #list, have[1], have[2])
    tree:add_proto_expert_info(e.field, said)
    return
  end
  for i, shard in ipairs(list) do
    local sum, count = sums.value((i - 1) * 8, 8), counts.value((i - 1) * 4, 4)
    local line = string.format("shard %d: %s, %d sessions", shard, sum:le_uint64():tohex(), count:le_uint())
    local item = tree:add(f.digest, sum, line)
    item:add(f.digest_shard, set.range, shard)
    item:add_le(f.digest_sum, sum)
    item:add_le(f.digest_count, count)
  end
end

-- ---- batches ----------------------------------------------------------------------------------------------
local function endpoint(have, name, i)
  local range, port = have(name, i), have(name .. "_port", i)
  if not range then
    return "?"
  end
  local host = range:len() == 4 and tostring(range:ipv4()) or "[" .. tostring(range:ipv6()) .. "]"
  return port and string.format("%s:%d", host, port:uint()) or host
end

local function session_line(have, i)
  local proto, state, form = have("proto", i), have("state", i), have("form", i)
  local words = {
    proto and (proto_names[proto:uint()] or string.format("proto %d", proto:uint())) or "?",
    endpoint(have, "inside", i) .. " > " .. endpoint(have, "remote", i),
  }
  if have("external", i) and not (form and form:uint() == 2) then
    table.insert(words, "as " .. endpoint(have, "external", i))
  end
  if state then
    table.insert(words, state_names[state:uint()] or string.format("state %d", state:uint()))
  end
  return table.concat(words, " ")
end

local function section(tree, v)
  local by = v.kind == "map" and keyed(v) or nil
  if not by or not (by.op and by.n and by.f and by.cols) or by.op.kind ~= "uint" or by.n.kind ~= "uint"
    or by.f.kind ~= "uint" or by.cols.kind ~= "map" then
    wrong(tree, "section", v, "map of op, n, f and cols")
    return "?"
  end
  local op, n, family = by.op.value:tonumber(), by.n.value:tonumber(), by.f.value:tonumber()
  local name = op_names[op] or "op " .. tostring(by.op.value)
  local label = string.format("%s x %s", name, tostring(by.n.value))
  local branch = tree:add(f.section, v.range, label)
  branch:add(f.op, by.op.range, by.op.value)
  branch:add(f.n, by.n.range, by.n.value)
  branch:add(f.family, by.f.range, by.f.value)
  if not op_names[op] then
    branch:add_proto_expert_info(e.later, "a kind of record that is not in the specification")
  end
  if n == 0 or (family ~= 4 and family ~= 6) then
    branch:add_proto_expert_info(e.field, string.format("%s records of family %s",
      tostring(by.n.value), tostring(by.f.value)))
    return label
  end
  local data, constant = {}, {}
  for _, item in ipairs(by.cols.value) do
    local key = item.key.kind == "str" and item.key.value or written(item.key)
    local known = column_named[key]
    local size = item.value.kind == "bin" and item.value.value and item.value.value:len() or 0
    local row = branch:add(f.column, item.value.range, key)
    if not known then
      row:append_text(": " .. written(item.value))
      row:add_proto_expert_info(e.later, "a column that is not in the specification")
    else
      local width = family == 4 and known[2] or known[3]
      row:add(f.column_width, item.value.range, width)
      if size == width or size == n * width then
        data[key], constant[key] = item.value.value, size == width
        row:add(f.column_constant, item.value.range, size == width)
        row:add(f.column_data, item.value.value)
        row:append_text(size == width and n > 1 and string.format(": 1 x %d, the same for all", width)
          or string.format(": %d x %d", n, width))
      else
        row:add_proto_expert_info(e.field, string.format("%s: %s; %.0f or %d bytes expected", key,
          written(item.value), n * width, width))
      end
    end
  end
  local cols = keyed(by.cols)
  for column in (required[op] or ""):gmatch("%S+") do
    if not cols[column] then
      branch:add_proto_expert_info(e.field, column .. " is missing")
    end
  end
  for _, item in ipairs(v.value) do
    local key = item.key.kind == "str" and item.key.value or written(item.key)
    if not (key == "op" or key == "n" or key == "f" or key == "cols") then
      branch:add(f.unknown, item.value.range, string.format("%s: %s", key, written(item.value)))
        :add_proto_expert_info(e.later)
    end
  end
  local function have(column, i)
    local known, bytes = column_named[column], data[column]
    local width = family == 4 and known[2] or known[3]
    return bytes and bytes(constant[column] and 0 or i * width, width)
  end
  local shown = math.min(n, sync.prefs.records)
  for i = 0, shown - 1 do
    if not (data.inside and data.remote) then
      break
    end
    local item = branch:add(f.session, data.inside, session_line(have, i))
    for _, column in ipairs(columns) do
      local range = have(column[1], i)
      if range then
        column[4](item, range, have, i)
      end
    end
  end
  if shown < n then
    branch:append_text(string.format(", %d shown", shown))
  end
  return label
end

local function sections(tree, v, key, seen)
  if v.kind ~= "array" then
    return wrong(tree, key, v, "list of sections")
  end
  for _, part in ipairs(v.value) do
    table.insert(seen, section(tree, part))
  end
end

-- ---- messages ---------------------------------------------------------------------------------------------
local seq, set = unsigned(f.seq), shards(f.shards)
local messages = {
  hello = {
    v_min = unsigned(f.v_min), v_max = unsigned(f.v_max), pair = text(f.pair), node = unsigned(f.node),
    inc = unsigned(f.inc), term = unsigned(f.term), role = unsigned(f.role),
    equal = parts, adopts = unsigned(f.adopts),
  },
  want = { stream = stream, seq = seq },
  resume = { stream = stream, seq = seq },
  sweep_begin = { stream = stream, seq = seq, shards = set, repair = unsigned(f.repair) },
  batch = { seq = seq, parts = sections },
  sweep_end = { seq = seq, shards = set },
  ack = { seq = seq, refused = not_taken },
  digest = { seq = seq, shards = set, sums = blob(f.sums), counts = blob(f.counts) },
  audit = { seq = seq, shards = set, differ = differing },
  go = { term = unsigned(f.term), passes_on = unsigned(f.passes_on), moves = unsigned(f.moves) },
  passed_on = { term = unsigned(f.term) },
  offer = { seq = seq, records = blob(f.records) },
  adopted = { seq = seq, taken = unsigned(f.taken), refused = unsigned(f.refused_n) },
  keys = { step = text(f.step), cert = blob(f.cert), hb = blob(f.hb) },
  keys_ack = { step = text(f.step), refused = text(f.refused) },
  beat = {},
  close = { reason = text(f.reason) },
}
-- What may be missing.
local optional = {
  ack = { refused = true },
  go = { passes_on = true, moves = true },
  hello = { equal = true, adopts = true },
}

-- What the Info column says behind the name.
local function remark(kind, by, seen)
  local words = { kind }
  if by.seq and by.seq.kind == "uint" then
    table.insert(words, tostring(by.seq.value))
  end
  if kind == "hello" and by.role and by.term and by.role.kind == "uint" then
    local role = role_names[by.role.value:tonumber()] or "?"
    table.insert(words, string.format("%s in term %s", role, written(by.term)))
  elseif kind == "batch" then
    table.insert(words, "(" .. table.concat(seen, ", ") .. ")")
  elseif kind == "close" and by.reason and by.reason.kind == "str" then
    table.insert(words, "(" .. by.reason.value .. ")")
  end
  return table.concat(words, " ")
end

local function message(tvb, tree)
  local input = reader.new(tvb, LENGTH_BYTES)
  local map = input:value(1)
  if input.at ~= tvb:len() then
    fault("byte %d: %d bytes behind the message", input.at, tvb:len() - input.at)
  end
  if map.kind ~= "map" then
    fault("not a map but %s", written(map))
  end
  local by = keyed(map)
  if not by.t or by.t.kind ~= "str" then
    fault("t is no name of a message")
  end
  local kind = by.t.value
  tree:add(f.t, by.t.range, kind)
  tree:append_text(": " .. kind)
  local layout, seen = messages[kind], {}
  if not layout then
    tree:add_proto_expert_info(e.later, "a message that is not in the specification")
  end
  for key in pairs(layout or {}) do
    if not by[key] and not (optional[kind] and optional[kind][key]) then
      tree:add_proto_expert_info(e.field, key .. " is missing")
    end
  end
  for _, item in ipairs(map.value) do
    local key = item.key.kind == "str" and item.key.value or written(item.key)
    if layout and layout[key] then
      layout[key](tree, item.value, key, seen)
    elseif key ~= "t" then
      local extra = tree:add(f.unknown, item.value.range, string.format("%s: %s", key, written(item.value)))
      if layout then
        extra:add_proto_expert_info(e.later)
      end
    end
  end
  if kind == "digest" then
    digests(tree, by)
  elseif kind == "close" then
    tree:add_proto_expert_info(e.closes)
  end
  return remark(kind, by, seen)
end

local function frame_length(tvb, _, offset)
  local length = tvb(offset, LENGTH_BYTES):uint()
  if length == 0 or length > sync.prefs.frame_max then
    return tvb:len() - offset -- it ends here: what follows has no meaning
  end
  return LENGTH_BYTES + length
end

local function frame(tvb, pinfo, root)
  local tree = root:add(sync, tvb())
  local length = tvb(0, LENGTH_BYTES):uint()
  tree:add(f.length, tvb(0, LENGTH_BYTES))
  local said
  if length == 0 or length > sync.prefs.frame_max then
    said = "bad frame"
    local what = string.format("frame of %d bytes, the limit is %d", length, sync.prefs.frame_max)
    tree:add_proto_expert_info(e.frame, what)
  else
    local ok, result = pcall(message, tvb, tree)
    said = ok and result or "bad frame"
    if not ok then
      tree:add_proto_expert_info(e.frame, type(result) == "table" and result.fault or tostring(result))
    end
  end
  pinfo.cols.info:append((tostring(pinfo.cols.info) == "" and "" or ", ") .. said)
  return tvb:len()
end

local tls = Dissector.get("tls")

function sync.dissector(tvb, pinfo, tree)
  -- The first byte of a frame's length is 0; a TLS record begins by its type and 3.
  local first = tvb(0, 1):uint()
  if first >= 20 and first <= 24 and (tvb:len() < 2 or tvb(1, 1):uint() == 3) then
    if pinfo.can_desegment > 0 then
      pinfo.can_desegment = 2 -- as TCP gave it to us: TLS stands in our place
    end
    return call(tls, tvb, pinfo, tree)
  end
  pinfo.cols.protocol = "FLEXHA-SYNC"
  pinfo.cols.info:clear()
  return dissect_tcp_pdus(tvb, tree, LENGTH_BYTES, frame_length, frame)
end

-- ---- heartbeats -------------------------------------------------------------------------------------------
local beat = Proto("flexha_hb", "flexha heartbeat")
local HEARTBEAT_VERSION, HEARTBEAT_BYTES, HEARTBEAT_EXTENDED = 2, 72, 96
local function hb(name) return "flexha_hb." .. name end
local h = {
  magic = ProtoField.string(hb("magic"), "Magic"),
  version = ProtoField.uint8(hb("version"), "Version"),
  node = ProtoField.uint8(hb("node"), "Node", base.DEC, node_names),
  role = ProtoField.uint8(hb("role"), "Role", base.DEC, role_names),
  flags = ProtoField.uint8(hb("flags"), "Flags", base.HEX),
  ready = ProtoField.bool(hb("flags.ready"), "Ready to take over", 8, nil, 0x01),
  bye = ProtoField.bool(hb("flags.bye"), "Leaving on purpose", 8, nil, 0x02),
  lan_up = ProtoField.bool(hb("flags.lan_up"), "LAN up", 8, nil, 0x04),
  wan_up = ProtoField.bool(hb("flags.wan_up"), "WAN up", 8, nil, 0x08),
  hung = ProtoField.bool(hb("flags.hung"), "A part of it hangs", 8, nil, 0x10),
  probe = ProtoField.bool(hb("flags.probe"), "Probe: answer at once", 8, nil, 0x20),
  pair_id = ProtoField.uint32(hb("pair_id"), "Pair (CRC-32 of its name)", base.HEX),
  interval_ms = ProtoField.uint32(hb("interval_ms"), "Interval", base.UNIT_STRING, { " ms" }),
  incarnation = ProtoField.uint64(hb("incarnation"), "Incarnation"),
  term = ProtoField.uint64(hb("term"), "Term"),
  seq = ProtoField.uint64(hb("seq"), "Number on this path"),
  priority = ProtoField.uint32(hb("priority"), "Priority"),
  control_beat = ProtoField.uint32(hb("control_beat"), "Beats of the control plane"),
  t_ns = ProtoField.uint64(hb("t_ns"), "Sent at (CLOCK_BOOTTIME of the sender)", base.UNIT_STRING, { " ns" }),
  echo = ProtoField.uint64(hb("echo"), "Echo (incarnation of the peer, as heard)"),
  mac = ProtoField.uint64(hb("mac"), "MAC (SipHash-2-4)", base.HEX),
  answers = ProtoField.uint64(hb("answers"), "Answers the probe sent at", base.UNIT_STRING, { " ns" }),
  heard = ProtoField.uint64(hb("heard"), "Heard what was sent at", base.UNIT_STRING, { " ns" }),
  mac_all = ProtoField.uint64(hb("mac_all"), "MAC of all before it (SipHash-2-4)", base.HEX),
  later = ProtoField.bytes(hb("later"), "Fields of a later version"),
}
local heartbeat_fields = {}
for _, field in pairs(h) do
  table.insert(heartbeat_fields, field)
end
beat.fields = heartbeat_fields
local bad_beat = ProtoExpert.new(hb("bad"), "The receiver drops this", MALFORMED, ERROR)
beat.experts = { bad_beat }
beat.prefs.port = Pref.uint("UDP port", 47850, "[ha] heartbeat_port")

local heartbeat_layout = {
  { h.magic, 0, 4 }, { h.version, 4, 1 }, { h.node, 5, 1 }, { h.role, 6, 1 }, { h.flags, 7, 1 },
  { h.pair_id, 8, 4 }, { h.interval_ms, 12, 4 }, { h.incarnation, 16, 8 }, { h.term, 24, 8 },
  { h.seq, 32, 8 }, { h.priority, 40, 4 }, { h.control_beat, 44, 4 }, { h.t_ns, 48, 8 }, { h.echo, 56, 8 },
  { h.mac, 64, 8 },
}
local heartbeat_extension = { { h.answers, 72, 8 }, { h.heard, 80, 8 }, { h.mac_all, 88, 8 } }

function beat.dissector(tvb, pinfo, root)
  pinfo.cols.protocol = "FLEXHA-HB"
  pinfo.cols.info = "Heartbeat"
  local tree = root:add(beat, tvb())
  if tvb:len() < HEARTBEAT_BYTES then
    local what = string.format("%d bytes, at least %d expected", tvb:len(), HEARTBEAT_BYTES)
    tree:add_proto_expert_info(bad_beat, what)
    return tvb:len()
  end
  local magic, version = tvb(0, 4):raw(), tvb(4, 1):uint()
  if magic ~= "FXHB" or version ~= HEARTBEAT_VERSION then
    tree:add_proto_expert_info(bad_beat, string.format("magic %q, version %d", magic, version))
    return tvb:len()
  end
  for _, part in ipairs(heartbeat_layout) do
    local item = tree:add(part[1], tvb(part[2], part[3]))
    if part[1] == h.flags then
      for _, flag in ipairs({ h.ready, h.bye, h.lan_up, h.wan_up, h.hung, h.probe }) do
        item:add(flag, tvb(part[2], 1))
      end
    end
  end
  local told = HEARTBEAT_BYTES
  if tvb:len() >= HEARTBEAT_EXTENDED then
    for _, part in ipairs(heartbeat_extension) do
      tree:add(part[1], tvb(part[2], part[3]))
    end
    told = HEARTBEAT_EXTENDED
  end
  if tvb:len() > told then
    tree:add(h.later, tvb(told))
  end
  local flags = tvb(7, 1):uint()
  local words = {
    "Heartbeat", node_names[tvb(5, 1):uint()] or "?", role_names[tvb(6, 1):uint()] or "?",
    "term " .. tostring(tvb(24, 8):uint64()), "number " .. tostring(tvb(32, 8):uint64()),
  }
  if bit32.btest(flags, 1) then
    table.insert(words, "ready")
  end
  if bit32.btest(flags, 2) then
    table.insert(words, "bye")
  end
  if bit32.btest(flags, 16) then
    table.insert(words, "hung")
  end
  if bit32.btest(flags, 32) then
    table.insert(words, "probe")
  end
  pinfo.cols.info = table.concat(words, " ")
  return tvb:len()
end

-- ---- the conduit's option of Geneve (RFC 8926) ------------------------------------------------------------
local conduit = Proto("flexha_conduit", "flexha conduit")
local OPTION_CLASS, OPTION_TYPE, OPTION_BYTES = 0xfff7, 0x81, 8
local function co(name) return "flexha_conduit." .. name end
local directions = { [0] = "to ACTIVE", "from ACTIVE" }
local c = {
  class = ProtoField.uint16(co("class"), "Class", base.HEX),
  kind = ProtoField.uint8(co("type"), "Type", base.HEX),
  direction = ProtoField.uint8(co("direction"), "Direction", base.DEC, directions),
  port = ProtoField.uint8(co("port"), "Port of the node"),
  shard = ProtoField.uint8(co("shard"), "Shard"),
  flags = ProtoField.uint8(co("flags"), "Flags", base.HEX),
  fragment = ProtoField.bool(co("fragment"), "Fragment", 8, nil, 0x01),
  term = ProtoField.uint32(co("term"), "Term (low 32 bits)"),
}
local conduit_fields = {}
for _, field in pairs(c) do
  table.insert(conduit_fields, field)
end
conduit.fields = conduit_fields
local bad_option = ProtoExpert.new(co("bad"), "The receiver drops this", MALFORMED, ERROR)
conduit.experts = { bad_option }
conduit.prefs.port = Pref.uint("UDP port", 6081, "Geneve")

local function option(range, tree)
  local data_bytes = bit32.band(range(3, 1):uint(), 0x1f) * 4
  local item = tree:add(conduit, range)
  item:add(c.class, range(0, 2))
  item:add(c.kind, range(2, 1))
  if range(2, 1):uint() ~= OPTION_TYPE or data_bytes ~= OPTION_BYTES then
    local what = "option type 0x%02x of %d bytes; 0x%02x of %d expected"
    item:add_proto_expert_info(bad_option,
      what:format(range(2, 1):uint(), data_bytes, OPTION_TYPE, OPTION_BYTES))
    return
  end
  item:add(c.direction, range(4, 1))
  item:add(c.port, range(5, 1))
  item:add(c.shard, range(6, 1))
  item:add(c.flags, range(7, 1)):add(c.fragment, range(7, 1))
  item:add(c.term, range(8, 4))
  local direction, port, shard = range(4, 1):uint(), range(5, 1):uint(), range(6, 1):uint()
  if not directions[direction] then
    item:add_proto_expert_info(bad_option, string.format("option: direction %d", direction))
  end
  if shard > 63 then
    item:add_proto_expert_info(bad_option, string.format("option: shard %d of 64", shard))
  end
  local way = direction == 1 and ", from ACTIVE, out of port %d" or ", to ACTIVE, in by port %d"
  item:append_text(way:format(port))
end

local geneve = DissectorTable.get("udp.port"):get_dissector(6081)

function conduit.dissector(tvb, pinfo, root)
  call(geneve, tvb, pinfo, root) -- the header and the packet within, as for anybody's Geneve
  if tvb:len() < 8 then
    return tvb:len()
  end
  local at, last = 8, 8 + bit32.band(tvb(0, 1):uint(), 0x3f) * 4
  while at + 4 <= math.min(last, tvb:len()) do
    local size = 4 + bit32.band(tvb(at + 3, 1):uint(), 0x1f) * 4
    if at + size > math.min(last, tvb:len()) then
      if tvb(at, 2):uint() == OPTION_CLASS then
        root:add(conduit, tvb(at, 4)):add_proto_expert_info(bad_option, "the option is cut off")
      end
      break
    end
    if tvb(at, 2):uint() == OPTION_CLASS then
      option(tvb(at, size), root)
    end
    at = at + size
  end
  return tvb:len()
end

-- ---- where they are found ---------------------------------------------------------------------------------
local registered = {}

local function register(proto, tables)
  return function()
    local port = proto.prefs.port
    for _, name in ipairs(tables) do
      if registered[name .. proto.name] then
        DissectorTable.get(name):remove(registered[name .. proto.name], proto)
      end
      DissectorTable.get(name):add(port, proto)
      registered[name .. proto.name] = port
    end
  end
end

local places = { [sync] = { "tls.port", "tcp.port" }, [beat] = { "udp.port" }, [conduit] = { "udp.port" } }
for proto, tables in pairs(places) do
  local renew = register(proto, tables)
  proto.prefs_changed = renew
  renew()
end
