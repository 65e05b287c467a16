"""Components written by hand whose places are what Rust's compiler cannot be told to use: globals of each type, several
memories, tables, segments, resources of the component's own.

Each has the same commands, the paths of requests. `/k5` keeps the number 5 in all places. `/fb5` looks for it in the
place with the letter `b`, `/ib` whether that place is as it was at the start. `/d` and `/u` are peculiar to a
component: see `DROPPED` and what follows it. The answer is a status: 201 for yes, 200 for no.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

from tests.conftest import HAND

SECRET = 0x7FF4_0000_7FA0_0001
"""As the bits of a number of each type it is odd: both halves are signalling NaNs where they are floats."""


@dataclass(frozen=True)
class Place:
    """How to keep the number `$n` there (an i64), and what is true if it is there, and if the place is as it was."""

    name: str
    keep: str
    found: str
    pristine: str
    declared: str = ""
    """In the guest's module, after its imports."""
    imported: str = ""
    """Imports of the guest's module from `other`."""
    started: str = ""
    """Runs when the guest's module is instantiated."""
    other: str = ""
    """In a module of its own, whose exports are `other`."""


N = "(local.get $n)"
LOW = f"(i32.wrap_i64 {N})"


def global_of(type_: str, value: str, read: str, initial: str, declared: str = "") -> Place:
    name = f"${type_}"
    return Place(
        f"a global of type {type_}",
        keep=f"(global.set {name} {value})",
        found=read,
        pristine=initial,
        declared=declared or f"(global {name} (mut {type_}) ({type_}.const 7))",
    )


def same(type_: str, one: str, other: str) -> str:
    return f"({type_}.eq {one} {other})"


GLOBALS = (
    global_of("i32", LOW, same("i32", "(global.get $i32)", LOW), "(i32.eq (global.get $i32) (i32.const 7))"),
    global_of("i64", N, same("i64", "(global.get $i64)", N), "(i64.eq (global.get $i64) (i64.const 7))"),
    global_of(
        "f32",
        f"(f32.reinterpret_i32 {LOW})",
        same("i32", "(i32.reinterpret_f32 (global.get $f32))", LOW),
        "(i32.eq (i32.reinterpret_f32 (global.get $f32)) (i32.const 0x7fa00007))",
        "(global $f32 (mut f32) (f32.const nan:0x200007))",
    ),
    global_of(
        "f64",
        f"(f64.reinterpret_i64 {N})",
        same("i64", "(i64.reinterpret_f64 (global.get $f64))", N),
        "(i64.eq (i64.reinterpret_f64 (global.get $f64)) (i64.const 0x8000000000000000))",
        "(global $f64 (mut f64) (f64.const -0))",
    ),
    *(
        Place(
            f"lane {lane} of a global of type v128",
            keep=f"(global.set $v{lane} (i64x2.replace_lane {lane} (global.get $v{lane}) {N}))",
            found=same("i64", f"(i64x2.extract_lane {lane} (global.get $v{lane}))", N),
            pristine=f"""(i32.and
              (i64.eq (i64x2.extract_lane 0 (global.get $v{lane})) (i64.const 11))
              (i64.eq (i64x2.extract_lane 1 (global.get $v{lane})) (i64.const -12)))""",
            declared=f"(global $v{lane} (mut v128) (v128.const i64x2 11 -12))",
        )
        for lane in (0, 1)
    ),
    Place(
        "a global that is exported",
        keep=f"(global.set $exported {N})",
        found=same("i64", "(global.get $exported)", N),
        pristine="(i64.eq (global.get $exported) (i64.const 21))",
        declared='(global $exported (export "exported") (mut i64) (i64.const 21))',
    ),
    Place(
        "a global of another module",
        keep=f"(global.set $imported {N})",
        found=same("i64", "(global.get $imported)", N),
        pristine="(i64.eq (global.get $imported) (i64.const 22))",
        imported='(import "other" "global" (global $imported (mut i64)))',
        other='(global (export "global") (mut i64) (i64.const 22))',
    ),
    Place(
        "a global that only another module sees",
        keep=f"(call $put-hidden {N})",
        found=same("i64", "(call $get-hidden)", N),
        pristine="(i64.eq (call $get-hidden) (i64.const 23))",
        imported="""(import "other" "put-hidden" (func $put-hidden (param i64)))
          (import "other" "get-hidden" (func $get-hidden (result i64)))""",
        other="""(global $hidden (mut i64) (i64.const 23))
          (func (export "put-hidden") (param i64) (global.set $hidden (local.get 0)))
          (func (export "get-hidden") (result i64) (global.get $hidden))""",
    ),
    Place(
        "a global that the start function has set",
        keep=f"(global.set $started {N})",
        found=same("i64", "(global.get $started)", N),
        pristine="(i64.eq (global.get $started) (i64.const 24))",
        declared="(global $started (mut i64) (i64.const 0))",
        started="(global.set $started (i64.const 24))",
    ),
)
MEMORIES = (
    Place(
        "memory",
        keep=f"(i64.store (i32.const 40000) {N})",
        found=same("i64", "(i64.load (i32.const 40000))", N),
        pristine="(i64.eqz (i64.load (i32.const 40000)))",
    ),
    Place(
        "memory from a data segment",
        keep=f"(i64.store (i32.const 41000) {N})",
        found=same("i64", "(i64.load (i32.const 41000))", N),
        pristine="(i64.eq (i64.load (i32.const 41000)) (i64.const 0x6867666564636261))",
        declared='(data (i32.const 41000) "abcdefgh")',
    ),
    Place(
        "memory that the start function has written",
        keep=f"(i64.store (i32.const 42000) {N})",
        found=same("i64", "(i64.load (i32.const 42000))", N),
        pristine="(i64.eq (i64.load (i32.const 42000)) (i64.const 25))",
        started="(i64.store (i32.const 42000) (i64.const 25))",
    ),
    Place(
        "memory filled from a passive segment",
        keep=f"""(memory.init $passive (i32.const 43000) (i32.const 0) (i32.const 8))
          (i64.store (i32.const 43008) {N})""",
        found=same("i64", "(i64.load (i32.const 43008))", N),
        pristine="(i32.and (i64.eqz (i64.load (i32.const 43000))) (i64.eqz (i64.load (i32.const 43008))))",
        declared='(data $passive "ABCDEFGH")',
    ),
    Place(
        "the memory of another module",
        keep=f"(call $put-word {N})",
        found=same("i64", "(call $get-word)", N),
        pristine="(i64.eq (call $get-word) (i64.const 0x6867666564636261))",
        imported="""(import "other" "put-word" (func $put-word (param i64)))
          (import "other" "get-word" (func $get-word (result i64)))""",
        other="""(memory 3)
          (data (i32.const 131064) "abcdefgh")
          (func (export "put-word") (param i64) (i64.store (i32.const 131064) (local.get 0)))
          (func (export "get-word") (result i64) (i64.load (i32.const 131064)))""",
    ),
)


def elsewhere(name: str, memory: str, at: str, address: str = "i32", initial: str = "") -> Place:
    """A memory that only another module sees."""
    word = f"({address}.const {at})"
    return Place(
        name,
        keep=f"(call $put-word {N})",
        found=same("i64", "(call $get-word)", N),
        pristine="(i64.eqz (call $get-word))",
        imported="""(import "other" "put-word" (func $put-word (param i64)))
          (import "other" "get-word" (func $get-word (result i64)))""",
        other=f"""{memory}
          (func (export "put-word") (param i64) {initial} (i64.store $m {word} (local.get 0)))
          (func (export "get-word") (result i64)
            (if (result i64) (i64.gt_u (i64.mul (i64.extend_i32_u (SIZE)) (i64.const 65536)) (i64.const {at}))
              (then (i64.load $m {word})) (else (i64.const 0))))""".replace(
            "SIZE", "memory.size $m" if address == "i32" else "i32.wrap_i64 (memory.size $m)"
        ),
    )


OTHERS = (
    elsewhere("a memory that cannot grow", "(memory $m 2 2)", "131064"),
    elsewhere(
        "a memory that is empty at first", "(memory $m 0)", "100", initial="(drop (memory.grow $m (i32.const 1)))"
    ),
    elsewhere("a memory with addresses of 64 bits", "(memory $m i64 2)", "131064", "i64"),
    elsewhere("the second memory of a module", "(memory 1) (memory $m 2)", "131064"),
    elsewhere("a memory of 64 MiB", "(memory $m 1024)", "60000000"),
)
"""Each in a component of its own. The host may restore these, or drop their instances."""
RESTORED = (*GLOBALS, *MEMORIES)
"""All that the host can put back: an instance with these is reused."""

TABLES = (
    Place(
        "an element of a table",
        keep="(table.set $table (i32.const 1) (ref.func $start))",
        found="(i32.eqz (ref.is_null (table.get $table (i32.const 1))))",
        pristine="(ref.is_null (table.get $table (i32.const 1)))",
        declared="(table $table 4 funcref) (elem declare func $start)",
    ),
    Place(
        "the size of a table",
        keep="(drop (table.grow $table (ref.null func) (i32.const 3)))",
        found="(i32.gt_u (table.size $table) (i32.const 4))",
        pristine="(i32.eq (table.size $table) (i32.const 4))",
        declared="(table $table 4 funcref)",
    ),
    Place(
        "elements that are filled in",
        keep="(table.fill $table (i32.const 1) (ref.func $start) (i32.const 2))",
        found="(i32.eqz (ref.is_null (table.get $table (i32.const 2))))",
        pristine="(ref.is_null (table.get $table (i32.const 2)))",
        declared="(table $table 4 funcref) (elem declare func $start)",
    ),
    Place(
        "elements from a passive segment",
        keep="(table.init $table $passive (i32.const 0) (i32.const 0) (i32.const 1))",
        found="(i32.eqz (ref.is_null (table.get $table (i32.const 0))))",
        pristine="(ref.is_null (table.get $table (i32.const 0)))",
        declared="(table $table 4 funcref) (elem $passive func $start)",
    ),
    Place(
        "elements of another table",
        keep="(table.copy $table $from (i32.const 0) (i32.const 0) (i32.const 1))",
        found="(i32.eqz (ref.is_null (table.get $table (i32.const 0))))",
        pristine="(ref.is_null (table.get $table (i32.const 0)))",
        declared="(table $table 4 funcref) (table $from 4 funcref) (elem (table $from) (i32.const 0) func $start)",
    ),
    Place(
        "a global that is a reference",
        keep="(global.set $reference (ref.func $start))",
        found="(i32.eqz (ref.is_null (global.get $reference)))",
        pristine="(ref.is_null (global.get $reference))",
        declared="(global $reference (mut funcref) (ref.null func)) (elem declare func $start)",
    ),
)
"""What refers to functions cannot be put back by copying numbers: instances with these are never reused."""

DROPPED = {
    "data": """(func $drop (data.drop $gone))
      (func $use (memory.init $gone (i32.const 50000) (i32.const 0) (i32.const 4)))
      (data $gone "gone")""",
    "elements": """(func $drop (elem.drop $gone))
      (func $use (table.init $table $gone (i32.const 0) (i32.const 0) (i32.const 1)))
      (table $table 4 funcref) (elem $gone func $start)""",
    "nothing": """(func $drop)
      (func $use (memory.init $gone (i32.const 50000) (i32.const 0) (i32.const 4)))
      (data $gone "gone")""",
}
"""Segments that `/d` drops and `/u` needs: it traps without."""


def letters(places: tuple[Place, ...]) -> dict[str, Place]:
    return dict(zip(string.ascii_lowercase, places, strict=False))


NOTHING = "(func $drop) (func $use)"


def text(
    places: tuple[Place, ...],
    *,
    extra: str = NOTHING,
    started: str = "",
    lowered: str = "",
    around: str = "",
    twice: bool = False,
) -> str:
    """The component.

    Args:
        places: Its places.
        extra: Two more functions, for `/d` and `/u`.
        started: What runs when it is instantiated.
        lowered: Core functions for `extra`, a name and a definition a line.
        around: What they need in the component.
        twice: Whether one of its modules is instantiated twice.
    """
    by_letter = letters(places).items()

    def either(what: str) -> str:
        chain = "(unreachable)"
        for letter, place in by_letter:
            chain = f"""(if (result i32) (i32.eq (local.get $letter) (i32.const {ord(letter)}))
              (then {getattr(place, what)}) (else {chain}))"""
        return chain

    def all_of(what: str) -> str:
        return "\n".join(dict.fromkeys(getattr(place, what) for _, place in by_letter))

    hand = HAND.read_text()
    types = hand[hand.index('(import "wasi:http/types') : hand.index('(export "[constructor]fields"')]
    functions = [line.split(maxsplit=1) for line in lowered.splitlines()]
    return f"""
    (component
      {types}
        (export "[constructor]fields" (func (result (own $fields))))
        (export "[method]fields.clone" (func (param "self" (borrow $fields)) (result (own $fields))))
        (export "[constructor]outgoing-response"
          (func (param "headers" (own $fields)) (result (own $outgoing-response))))
        (export "[method]outgoing-response.set-status-code"
          (func (param "self" (borrow $outgoing-response)) (param "status-code" u16) (result (result))))
        (export "[method]incoming-request.path-with-query"
          (func (param "self" (borrow $incoming-request)) (result (option string))))
        (export "[static]response-outparam.set"
          (func (param "param" (own $response-outparam))
                (param "response" (result (own $outgoing-response) (error $code)))))
      ))
      (alias export $types "fields" (type $fields))
      (alias export $types "incoming-request" (type $incoming-request))
      (alias export $types "response-outparam" (type $response-outparam))

      (core module $io
        (memory (export "memory") 1)
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
      (core instance $io (instantiate $io))
      (alias core export $io "memory" (core memory $memory))
      (alias core export $io "realloc" (core func $realloc))

      (core func $path (canon lower (func $types "[method]incoming-request.path-with-query")
        (memory $memory) (realloc $realloc) string-encoding=utf8))
      (core func $new-fields (canon lower (func $types "[constructor]fields")))
      (core func $clone (canon lower (func $types "[method]fields.clone")))
      (core func $drop-fields (canon resource.drop $fields))
      (core func $new-response (canon lower (func $types "[constructor]outgoing-response")))
      (core func $set-status (canon lower (func $types "[method]outgoing-response.set-status-code")))
      (core func $set (canon lower (func $types "[static]response-outparam.set")
        (memory $memory) string-encoding=utf8))
      (core func $drop-request (canon resource.drop $incoming-request))
      {around}
      {"".join(f"(core func ${name} {definition})" for name, definition in functions)}

      (core module $other {all_of("other")})
      {"(core instance (instantiate $other))" if twice else ""}
      (core instance $other (instantiate $other))
      (core module $guest
        (import "io" "memory" (memory 0))
        (import "host" "path" (func $path (param i32 i32)))
        (import "host" "new-fields" (func $new-fields (result i32)))
        (import "host" "clone" (func $clone (param i32) (result i32)))
        (import "host" "drop-fields" (func $drop-fields (param i32)))
        (import "host" "new-response" (func $new-response (param i32) (result i32)))
        (import "host" "set-status" (func $set-status (param i32 i32) (result i32)))
        (import "host" "set" (func $set (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
        (import "host" "drop-request" (func $drop-request (param i32)))
        {all_of("imported")}
        {extra}
        {all_of("declared")}
        (func $start {all_of("started")} {started})
        (start $start)
        (func $keep (param $n i64) {all_of("keep")})
        (func $found (param $letter i32) (param $n i64) (result i32) {either("found")})
        (func $pristine (param $letter i32) (result i32) {either("pristine")})
        (func $number (param $at i32) (param $end i32) (result i64)
          (local $n i64)
          (block $done
            (loop $next
              (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
              (local.set $n (i64.add (i64.mul (local.get $n) (i64.const 10))
                (i64.extend_i32_u (i32.sub (i32.load8_u (local.get $at)) (i32.const 48)))))
              (local.set $at (i32.add (local.get $at) (i32.const 1)))
              (br $next)))
          (local.get $n))
        (func (export "handle") (param $request i32) (param $out i32)
          (local $response i32) (local $yes i32)
          (local $at i32) (local $end i32) (local $command i32) (local $letter i32)
          (call $path (local.get $request) (i32.const 16))
          (local.set $at (i32.load (i32.const 20)))
          (local.set $end (i32.add (local.get $at) (i32.load (i32.const 24))))
          (call $drop-request (local.get $request))
          (local.set $command (i32.load8_u offset=1 (local.get $at)))
          (local.set $letter (i32.load8_u offset=2 (local.get $at)))
          (if (i32.eq (local.get $command) (i32.const {ord("k")}))
            (then (call $keep (call $number (i32.add (local.get $at) (i32.const 2)) (local.get $end)))))
          (if (i32.eq (local.get $command) (i32.const {ord("f")}))
            (then (local.set $yes (call $found (local.get $letter)
              (call $number (i32.add (local.get $at) (i32.const 3)) (local.get $end))))))
          (if (i32.eq (local.get $command) (i32.const {ord("i")}))
            (then (local.set $yes (call $pristine (local.get $letter)))))
          (if (i32.eq (local.get $command) (i32.const {ord("d")})) (then (call $drop)))
          (if (i32.eq (local.get $command) (i32.const {ord("u")})) (then (call $use)))
          (local.set $response (call $new-response (call $new-fields)))
          (drop (call $set-status (local.get $response) (i32.add (i32.const 200) (local.get $yes))))
          (call $set (local.get $out) (i32.const 0) (local.get $response)
            (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))))
      (core instance $guest (instantiate $guest
        (with "other" (instance $other))
        (with "io" (instance $io))
        (with "host" (instance
          (export "path" (func $path))
          (export "new-fields" (func $new-fields))
          (export "clone" (func $clone))
          (export "drop-fields" (func $drop-fields))
          (export "new-response" (func $new-response))
          (export "set-status" (func $set-status))
          (export "set" (func $set))
          (export "drop-request" (func $drop-request))
          {"".join(f'(export "{name}" (func ${name}))' for name, _ in functions)}))))

      (func $handle (param "request" (own $incoming-request)) (param "response-out" (own $response-outparam))
        (canon lift (core func $guest "handle")))
      (component $handler
        (import "request" (type $request (sub resource)))
        (import "outparam" (type $outparam (sub resource)))
        (import "handle" (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))))
        (export "handle" (func $handle)))
      (instance $handler (instantiate $handler
        (with "request" (type $incoming-request))
        (with "outparam" (type $response-outparam))
        (with "handle" (func $handle))))
      (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))
    """


def nested() -> str:
    """Another module's memory and global, in a component beside the guest's: both are inside of the whole one."""
    whole = text((NESTED,))
    own = whole[whole.index("(core module $other") : whole.index("(core module $guest")]
    inner = """
      (import "inner" (instance $inner
        (export "put" (func (param "n" s64)))
        (export "get" (func (result s64)))))
      (core func $put (canon lower (func $inner "put")))
      (core func $get (canon lower (func $inner "get")))
      (core instance $other (export "put" (func $put)) (export "get" (func $get)))"""
    types = whole[whole.index('(import "wasi:http/types') : whole.index('(alias export $types "fields"')]
    return f"""
    (component
      {types}
      (component $inner
        (core module $module {NESTED.other})
        (core instance $module (instantiate $module))
        (func (export "put") (param "n" s64) (canon lift (core func $module "put")))
        (func (export "get") (result s64) (canon lift (core func $module "get"))))
      (instance $inner (instantiate $inner))
      {whole.strip().replace("(component", "(component $main", 1).replace(own, inner)}
      (instance $main (instantiate $main
        (with "wasi:http/types@0.2.0" (instance $types)) (with "inner" (instance $inner))))
      (alias export $main "wasi:http/incoming-handler@0.2.0" (instance $handler))
      (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))
    """


def behind(back: str) -> str:
    """The component `back`, which another one calls that is beside it and has places of its own.

    That one answers by itself the paths `/xk` (it keeps something), `/xi` (whether its places are as they were) and
    `/xh` (the number of its next handle but two; all three are left behind).
    """
    types = back[back.index('(import "wasi:http/types') : back.index('(alias export $types "fields"')]
    lowered = back[back.index('(alias export $types "fields"') : back.index("(core module $other")]
    imports = back[back.index('(import "io" "memory"') : back.index('(import "host" "drop-request"')]
    given = back[back.index('(with "io"') : back.index('(export "drop-request"')]
    exported = back[back.index("(component $handler") :].strip().removesuffix(")")
    return f"""
    (component
      {types}
      {back.strip().replace("(component", "(component $back", 1)}
      (instance $back (instantiate $back (with "wasi:http/types@0.2.0" (instance $types))))
      (alias export $back "wasi:http/incoming-handler@0.2.0" (instance $next))
      (component $front
        {types}
        {lowered}
        (import "next" (instance $next
          (alias outer 1 $incoming-request (type $request))
          (alias outer 1 $response-outparam (type $outparam))
          (export "handle" (func (param "request" (own $request)) (param "response-out" (own $outparam))))))
        (core func $next (canon lower (func $next "handle")))
        (core module $guest
          {imports}
          (import "next" "handle" (func $next (param i32 i32)))
          (global $kept (mut i64) (i64.const 3))
          (memory $own 2)
          (data (memory $own) (i32.const 70000) "abcdefgh")
          (func (export "handle") (param $request i32) (param $out i32)
            (local $response i32) (local $status i32) (local $at i32) (local $command i32)
            (call $path (local.get $request) (i32.const 16))
            (local.set $at (i32.load (i32.const 20)))
            (if (i32.ne (i32.load8_u offset=1 (local.get $at)) (i32.const {ord("x")}))
              (then (call $next (local.get $request) (local.get $out)) (return)))
            (local.set $command (i32.load8_u offset=2 (local.get $at)))
            (local.set $status (i32.const 200))
            (if (i32.eq (local.get $command) (i32.const {ord("k")}))
              (then (global.set $kept (i64.const 9)) (i64.store $own (i32.const 70000) (i64.const 9))))
            (if (i32.eq (local.get $command) (i32.const {ord("i")}))
              (then (local.set $status (i32.add (i32.const 200) (i32.and
                (i64.eq (global.get $kept) (i64.const 3))
                (i64.eq (i64.load $own (i32.const 70000)) (i64.const 0x6867666564636261)))))))
            (if (i32.eq (local.get $command) (i32.const {ord("h")}))
              (then
                (drop (call $new-fields)) (drop (call $new-fields))
                (local.set $status (i32.add (i32.const 200) (call $new-fields)))))
            (local.set $response (call $new-response (call $new-fields)))
            (drop (call $set-status (local.get $response) (local.get $status)))
            (call $set (local.get $out) (i32.const 0) (local.get $response)
              (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))))
        (core instance $guest (instantiate $guest
          (with "next" (instance (export "handle" (func $next))))
          {given}))))
        (func $handle (param "request" (own $incoming-request)) (param "response-out" (own $response-outparam))
          (canon lift (core func $guest "handle")))
        {exported})
      (instance $front (instantiate $front
        (with "wasi:http/types@0.2.0" (instance $types)) (with "next" (instance $next))))
      (alias export $front "wasi:http/incoming-handler@0.2.0" (instance $all))
      (export "wasi:http/incoming-handler@0.2.0" (instance $all)))
    """


NESTED = Place(
    "a component in the component",
    keep=f"(call $put {N})",
    found=same("i64", "(call $get)", N),
    pristine="(i64.eq (call $get) (i64.const 26))",
    imported="""(import "other" "put" (func $put (param i64)))
      (import "other" "get" (func $get (result i64)))""",
    other="""(memory 2)
      (global $g (mut i64) (i64.const 13))
      (data (i32.const 70000) "\\0d")
      (func (export "put") (param i64)
        (i64.store (i32.const 70000) (i64.const 0))
        (global.set $g (local.get 0)))
      (func (export "get") (result i64) (i64.add (i64.load (i32.const 70000)) (global.get $g)))""",
)
OWN_RESOURCE = {
    # a number that the guest keeps in a handle of its own resource: `/d` makes one, `/u` needs the first
    "extra": """
      (import "host" "resource-new" (func $new (param i32) (result i32)))
      (import "host" "resource-rep" (func $rep (param i32) (result i32)))
      (func $drop (drop (call $new (i32.const 42))))
      (func $use (if (i32.ne (call $rep (i32.const 1)) (i32.const 42)) (then unreachable)))""",
    "around": "(type $own (resource (rep i32)))",
    "lowered": """resource-new (canon resource.new $own)
resource-rep (canon resource.rep $own)""",
}
STARTED_WITH_A_HANDLE = {
    # fields that are made when the component is instantiated: `/d` drops them, `/u` needs them
    "extra": """
      (global $handle (mut i32) (i32.const 0))
      (func $drop (call $drop-fields (global.get $handle)))
      (func $use (call $drop-fields (call $clone (global.get $handle))))""",
    "started": "(global.set $handle (call $new-fields))",
}
