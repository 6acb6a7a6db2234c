-- Builds what scripts see of Lua: tables that cannot be changed, and functions that do not let an error of the
-- server's own pass as something to be caught. It runs once per state and leaves nothing behind but upvalues.
local G, api = ...
local setmetatable, type, error, byte = G.setmetatable, G.type, G.error, G.string.byte
local rawpcall, rawxpcall, rawload, rawloadstring = G.pcall, G.xpcall, G.load, G.loadstring
local rawget, rawset, rawunpack, rawresume = G.rawget, G.rawset, G.unpack, G.coroutine.resume
local pending, check, readonly, missing = api.pending, api.check, api.readonly, api.missing

-- Most values `unpack` gives: the server keeps a reference to each argument of a call, and has room for 8,000.
local UNPACK_MAX = 7000

-- The contents of each table that scripts see locked.
local real = {}

local function lock(contents)
  local view = {}
  real[view] = contents
  return setmetatable(view, { __index = contents, __newindex = readonly, __metatable = false })
end

local function environment(contents)
  setmetatable(contents, { __index = missing })
  local view = {}
  real[view] = contents
  contents._G = view
  local meta = { __index = contents, __newindex = readonly, __metatable = lock({ __index = missing }) }
  return setmetatable(view, meta), meta
end

local function resumed(ok, ...)
  if ok then return ok, ... end
  return ok, pending((...))
end

-- An error of a table with `err` is that text, as in versions before errors were tables.
local function caught(ok, ...)
  if ok then return ok, ... end
  local err = pending((...))
  if type(err) == 'table' then
    local text = err.err
    local kind = type(text)
    if kind == 'string' or kind == 'number' then err = text end
  end
  return ok, err
end

local function xcaught(ok, ...)
  if not ok then check() end
  return ok, ...
end

local rawcollect = G.collectgarbage

local over = {
  collectgarbage = function(option, argument)
    -- The state is not one script's: nobody stops its collector.
    if option == 'stop' then return 0 end
    return rawcollect(option, argument)
  end,
  pcall = function(...)
    return caught(rawpcall(...))
  end,
  xpcall = function(f, handler)
    return xcaught(rawxpcall(f, function(err) return handler(pending(err)) end))
  end,
  loadstring = function(text, name)
    if type(text) == 'string' and byte(text, 1) == 27 then return nil, 'binary chunks are not loaded' end
    return rawloadstring(text, name)
  end,
  load = function(f, name)
    if type(f) ~= 'function' then return rawload(f, name) end
    local first = true
    return rawload(function()
      local piece = f()
      if first and type(piece) == 'string' and piece ~= '' then
        first = false
        if byte(piece, 1) == 27 then error('binary chunks are not loaded', 0) end
      end
      return piece
    end, name)
  end,
  unpack = function(t, from, to)
    if type(t) ~= 'table' then
      error("bad argument #1 to 'unpack' (table expected, got " .. type(t) .. ')', 2)
    end
    from = from or 1
    to = to or #t
    if to - from >= UNPACK_MAX then error('too many results to unpack', 2) end
    return rawunpack(t, from, to)
  end,
  rawget = function(t, key)
    return rawget(real[t] or t, key)
  end,
  setmetatable = function(t, meta)
    if real[t] then error('Attempt to modify a readonly table', 0) end
    return setmetatable(t, meta)
  end,
  rawset = function(t, key, value)
    if real[t] then error('Attempt to modify a readonly table', 0) end
    return rawset(t, key, value)
  end,
}

local coroutines = {}
for name, f in G.pairs(G.coroutine) do coroutines[name] = f end
coroutines.resume = function(...)
  return resumed(rawresume(...))
end

local function builtins(into)
  for _, name in G.ipairs({
    'assert', 'error', 'gcinfo', 'getmetatable', 'ipairs', 'next', 'pairs', 'rawequal', 'select', 'tonumber', 'tostring',
    'type', '_VERSION',
  }) do
    into[name] = G[name]
  end
  for name, f in G.pairs(over) do into[name] = f end
  return into
end

-- Patterns are matched by the server, with a bound. What of it calls a script's function is a loop here.
local seek, substitute, iterate = api.seek, api.substitute, api.iterate
local sub, concat, select = G.string.sub, G.table.concat, G.select

G.string.gmatch = function(...)
  local text, pattern = iterate(...)
  local at = 0
  local function found(from, to, ...)
    if not from then return end
    at = from == to and to + 1 or to
    return ...
  end
  return function()
    return found(seek(text, pattern, at, false))
  end
end

G.string.gsub = function(...)
  local done, text, pattern, most = substitute(...)
  if done then return done, text end
  local by = select(3, ...)
  local is_table, anchored = type(by) == 'table', byte(pattern, 1) == 94
  local parts, count, at, len = {}, 0, 0, #text
  local function add(from, to, ...)
    if not from then return false end
    count = count + 1
    if from > at then parts[#parts + 1] = sub(text, at + 1, from) end
    local value
    if is_table then value = by[(...)] else value = by(...) end
    local kind = type(value)
    if not value then
      value = sub(text, from + 1, to)
    elseif kind ~= 'string' and kind ~= 'number' then
      error('invalid replacement value (a ' .. kind .. ')', 3)
    end
    parts[#parts + 1] = value
    at = to
    if from < to then return true end
    -- Of nothing: the next byte goes along.
    if at >= len then return false end
    at = at + 1
    parts[#parts + 1] = sub(text, at, at)
    return true
  end
  while count < most and add(seek(text, pattern, at, true)) and not anchored do end
  parts[#parts + 1] = sub(text, at + 1)
  return concat(parts), count
end

-- Who asks for the metatable of strings gets a view of one.
local strings = lock(G.string)
G.getmetatable('').__metatable = lock({ __index = strings })

local libraries = {
  string = strings,
  table = lock(G.table),
  math = lock(G.math),
  coroutine = lock(coroutines),
  cjson = lock(api.cjson),
  cmsgpack = lock(api.cmsgpack),
  struct = lock(api.struct),
  bit = lock(api.bit),
}

local function globals(redis)
  local contents = builtins({})
  for name, library in G.pairs(libraries) do contents[name] = library end
  contents.redis = lock(redis)
  return contents
end

local eval_contents = globals(api.eval)
local function_contents = globals(api.functions)
local load_redis = setmetatable(api.load, { __index = missing })
local load_contents = setmetatable({ redis = lock(load_redis) }, { __index = missing })
local eval_env = environment(eval_contents)
local function_env, function_meta = environment(function_contents)

local function invoke(f, handler, keys, args)
  return rawxpcall(function() return f(keys, args) end, handler)
end

-- What a library may see while it is loaded, and what its functions see when they run.
local function loading(on)
  function_meta.__index = on and load_contents or function_contents
end

return eval_env, eval_contents, function_env, rawxpcall, invoke, loading
