# What every expression of a mapping file may use besides jq itself. Documented in docs/mappings.md.

# -- refused: a mapping turns one webhook into events, it reads nothing else ---------------------
# jq drops a function that nobody calls, and refuses one that names an unknown variable: so only a mapping that
# calls one of these does not load.
def env: $__refused_env;
def input: $__refused_input;
def inputs: $__refused_inputs;
def debug: $__refused_debug;
def debug(f): $__refused_debug;
def stderr: $__refused_stderr;
def now: $__refused_now;
def localtime: $__refused_localtime;
def strflocaltime(f): $__refused_strflocaltime;
def halt: $__refused_halt;
def halt_error: $__refused_halt_error;
def halt_error(f): $__refused_halt_error;
def input_filename: $__refused_input_filename;
def input_line_number: $__refused_input_line_number;
def get_search_list: $__refused_get_search_list;
def get_jq_origin: $__refused_get_jq_origin;
def get_prog_origin: $__refused_get_prog_origin;
def modulemeta: $__refused_modulemeta;

# -- offered -----------------------------------------------------------------------------------
# component(key): the component id, or list of ids, that components.yaml gives for this key; null when it gives none.
def component($key): if $key == null then null else $components[$key | tostring] end;

# epoch_ms: a date as milliseconds since 1970, from ISO 8601 text or from seconds or milliseconds; null stays null.
def epoch_ms:
  if . == null or . == "" then null
  elif type == "number" then if fabs < 100000000000 then . * 1000 else . end | round
  elif type != "string" then error("is no date: \(tojson)")
  else
    # What follows the seconds is taken apart by hand: a regular expression costs several times as much.
    .[19:] as $rest
    | ($rest | split("Z")[0] // "" | split("+")[0] // "" | split("-")[0] // "") as $fraction
    | $rest[($fraction | length):] as $offset
    | ((.[0:10] + "T" + (if length > 10 then .[11:19] else "00:00:00" end) + "Z") | fromdateiso8601) * 1000
      + (if $fraction == "" then 0 else ($fraction[1:4] + "00")[0:3] | tonumber end)
      - (if $offset == "" or $offset == "Z" or $offset == "+00:00" then 0
         else (($offset[1:3] | tonumber) * 60 + (if $offset | length > 3 then $offset[-2:] | tonumber else 0 end))
           * (if $offset[0:1] == "-" then -60000 else 60000 end)
         end)
  end;

# http_date: a date as in HTTP's headers, "Tue, 03 Mar 2026 09:15:00 GMT", in milliseconds; null for anything else.
def http_date: try (strptime("%a, %d %b %Y %H:%M:%S GMT") | mktime * 1000) catch null;

# newest(a, b, ...): the latest of several dates, in milliseconds; nulls are passed over; null when all are.
def newest(dates): [dates | epoch_ms | values] | max;

# words(a, b, ...): texts put together with " · " between them; nulls and empty texts are passed over.
def words(parts):
  reduce (parts | select(. != null and . != "") | tostring) as $part ("";
    if . == "" then $part else . + " · " + $part end);

# nonempty: the text, or null when it is null, empty or blank. For use before `//`.
def nonempty: if type == "string" and trim == "" then null else . end;

# absolute(base): the link as an absolute URL: itself if it is one, joined to the base otherwise; null stays null.
def absolute($base):
  if . == null or . == "" then null
  elif startswith("https://") or startswith("http://") then .
  else ($base | rtrimstr("/")) + "/" + ltrimstr("/") end;

# -- used by the compiler ------------------------------------------------------------------------
def _text: if . == null then "" elif type == "string" then . else tojson end;
def _not_one:
  error(if length == 0 then "gives no value; end it with `// null` if that is meant"
        else "gives several values; it must give exactly one" end);
def _fail($place): error($place + {reason: (if type == "string" then . else tojson end)});
def _list: if type == "array" then . else error("must give a list, but gives \(type)") end;
# The component ids: [] for none.
def _ids:
  [if type == "array" then .[] | if type == "array" then .[] else . end else . end | values]
  | if all(type == "string" and . != "") then .
    else error("must give a component id, a list of ids or null, but gives \(tojson)") end;
# The keys that were looked up, as one text; null for none.
def _key: [.. | scalars | values | tostring] | if . == [] then null else join(", ") end;
def _result: tojson;
