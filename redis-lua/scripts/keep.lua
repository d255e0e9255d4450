#!lua
-- keep: what is bound to a holder stays bound for some more time, or no longer.
--
-- KEYS    bindings (HASHes with `rev` and `doc`: see bind.lua); one hash tag.
-- ARGV    holder, life_ms; 0 ends the bindings.
-- RETURNS {n}: so many of them were the holder's. The others are left alone.
-- ATOMIC  Redis runs a script alone.
-- EXPIRY  life_ms from now.
-- MEMORY  None.
-- ACL     +hget +pexpire on the keys given.

local holder, life_ms, kept = ARGV[1], ARGV[2], 0

for _, binding in ipairs(KEYS) do
  if redis.call('HGET', binding, 'rev') == holder then
    redis.call('PEXPIRE', binding, life_ms)
    kept = kept + 1
  end
end
return {kept}
