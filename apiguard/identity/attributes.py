"""Caller and request -> Question: the SubjectAccessReview to ask, and the key of its answer.

Sources: k8s.io/apiserver/pkg/endpoints/filters/authorization.go (which attributes a request has),
k8s.io/apiserver/plugin/pkg/authorizer/webhook/webhook.go (how selectors become requirements),
pkg/registry/authorization/util/helpers.go (how upstream reads them back).

The key is a digest of what is asked, byte for byte: whatever upstream sees takes part in it, and a
field added to the question cannot be forgotten in the key. JSON keeps fields apart, so no two
questions have one text; what JSON or Go could fold into one (lone surrogates, bytes that are no
UTF-8) is not asked at all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from apiguard.identity.accessreview import Unknown
from apiguard.identity.proof import Proof, Trust
from apiguard.kube.identity import Caller, Identity
from apiguard.kube.requestinfo import RequestInfo
from apiguard.kube.selectors import (
    FieldRequirement,
    LabelRequirement,
    Operator,
    SelectorError,
    parse_field_selector,
    parse_label_selector,
)
from apiguard.memo import Memo

LONGEST_ATTRIBUTES = 10_000
"""Bytes a caller can choose; above it kube-apiserver does not keep an answer either."""

LONGEST_SUBJECT = 1 << 18
"""Bytes of user, groups and extra: 10,000 groups of 25 characters."""

LONGEST_REMEMBERED = 4_096
"""Bytes of one half of a question that are remembered; longer ones are built each time."""

IMPERSONATION: Final = Unknown("impersonation")
UNPROVEN: Final = Unknown("unproven")
OVERSIZED: Final = Unknown("oversized")
UNCLEAR: Final = Unknown("unclear")

_HEAD = b'{"apiVersion":"authorization.k8s.io/v1","kind":"SubjectAccessReview","spec":{'


class Unaskable(ValueError):  # noqa: N818  a condition of the input, answered with a verdict
    """This cannot be put into words that upstream reads back unchanged."""


@dataclass(frozen=True, slots=True)
class Question:
    """May ``user`` do this? ``subject`` and ``attributes`` are the members of ``spec``.

    The halves are shared by many questions, so the body is put together only when it is sent.
    """

    user: str
    subject: bytes
    attributes: bytes
    key: bytes

    def __repr__(self) -> str:
        return f"Question({self.key.hex()})"  # review bodies stay out of logs

    @property
    def body(self) -> bytes:
        """The SubjectAccessReview to POST to ``accessreview.PATH``."""
        return b"".join((_HEAD, self.subject, b",", self.attributes, b"}}"))


def question_of(user: str, subject: bytes, attributes: bytes) -> Question:
    digest = blake2b(subject, digest_size=32)
    digest.update(b",")
    digest.update(attributes)
    return Question(user, subject, attributes, digest.digest())


class Questions:
    """Builds the questions of one worker.

    ``ignore_extra`` leaves ``extra`` out of question and key, which lets pods of one service
    account share an answer. Right where the authorizers are Node and RBAC, which never look at
    it; wrong beside a webhook or CEL rule that does.
    """

    __slots__ = ("_attributes", "_ignore_extra", "_subjects", "_trust")

    def __init__(
        self, *, trust: Trust | None = None, ignore_extra: bool = False, remembered: int = 1_024
    ) -> None:
        self._trust = trust or Trust()
        self._ignore_extra = ignore_extra
        self._subjects: Memo[Caller, bytes] = Memo(remembered)
        self._attributes: Memo[RequestInfo, bytes] = Memo(remembered)

    def of(
        self, caller: Caller, proof: Proof, info: RequestInfo, *, reachable: bool
    ) -> Question | Unknown:
        """What must be asked before ``caller`` gets a cached byte; Unknown: it goes upstream.

        ``reachable``: upstream can be asked for its own proof of a caller. Costs 5 us with both
        halves remembered, 70 us without (CPython 3.11, a busy machine).
        """
        if caller.impersonated is not None:
            return IMPERSONATION
        identity = caller.identity
        if identity is None or not self._trust.suffices(proof, reachable=reachable):
            return UNPROVEN
        try:
            subject = self._subjects.get(caller) or self._subject(caller, identity)
            attributes = self._attributes.get(info) or self._attributes_of(info)
        except Unaskable:
            return UNCLEAR
        if len(subject) > LONGEST_SUBJECT or len(attributes) > LONGEST_ATTRIBUTES:
            return OVERSIZED
        return question_of(identity.user, subject, attributes)

    def _subject(self, caller: Caller, identity: Identity) -> bytes:
        built = subject_members(identity, ignore_extra=self._ignore_extra)
        if len(built) <= LONGEST_REMEMBERED:
            self._subjects.put(caller, built)
        return built

    def _attributes_of(self, info: RequestInfo) -> bytes:
        built = attribute_members(info)
        if len(built) <= LONGEST_REMEMBERED:
            self._attributes.put(info, built)
        return built


def subject_members(identity: Identity, *, ignore_extra: bool = False) -> bytes:
    """``"user":...,"groups":...`` as in ``spec``; empty members are left out.

    Groups keep their order and repetitions, extra is sorted, being a map. Raises Unaskable.
    """
    members: dict[str, Any] = {"user": identity.user}
    if identity.groups:
        members["groups"] = identity.groups
    if identity.uid:
        members["uid"] = identity.uid
    if identity.extra and not ignore_extra:
        members["extra"] = dict(sorted(identity.extra.items()))
    return _members(members)


def attribute_members(info: RequestInfo) -> bytes:
    """``"resourceAttributes":{...}``, or ``"nonResourceAttributes":{...}``. Raises Unaskable."""
    if not info.is_resource:
        return _members({"nonResourceAttributes": {"path": info.path, "verb": info.verb}})
    named = {
        "namespace": info.namespace,
        "verb": info.verb,
        "group": info.api_group,
        "version": info.api_version,
        "resource": info.resource,
        "subresource": info.subresource,
        "name": info.name,
    }
    attributes: dict[str, Any] = {name: value for name, value in named.items() if value}
    try:
        fields = parse_field_selector(info.field_selector).requirements
        labels = parse_label_selector(info.label_selector).requirements
    except SelectorError:
        raise Unaskable("a selector that cannot be read") from None
    if fields:
        attributes["fieldSelector"] = {"requirements": [_field(one) for one in fields]}
    if labels:
        attributes["labelSelector"] = _labels(labels, info.label_selector)
    return _members({"resourceAttributes": attributes})


def _field(requirement: FieldRequirement) -> dict[str, Any]:
    operator = "NotIn" if requirement.operator is Operator.NOT_EQUALS else "In"
    return {"key": requirement.field, "operator": operator, "values": [requirement.value]}


_OPERATORS = {
    Operator.IN: "In",
    Operator.EQUALS: "In",
    Operator.DOUBLE_EQUALS: "In",
    Operator.NOT_IN: "NotIn",
    Operator.NOT_EQUALS: "NotIn",
    Operator.EXISTS: "Exists",
    Operator.DOES_NOT_EXIST: "DoesNotExist",
}


def _labels(requirements: tuple[LabelRequirement, ...], raw: str) -> dict[str, Any]:
    """``k>5`` has no operator in a review: then the selector goes as text.

    Upstream parses that as it parses the request's own. Leaving the term out, as a webhook sees
    it, would ask for more than the caller wants and could turn a yes into a no.
    """
    if any(one.operator not in _OPERATORS for one in requirements):
        return {"rawSelector": raw}
    return {"requirements": [_label(one) for one in requirements]}


def _label(requirement: LabelRequirement) -> dict[str, Any]:
    term: dict[str, Any] = {
        "key": requirement.key,
        "operator": _OPERATORS[requirement.operator],
    }
    if requirement.values:
        term["values"] = requirement.values
    return term


def _members(value: dict[str, Any]) -> bytes:
    """``value`` as JSON without its braces. Raises Unaskable."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if "\ufffd" in text:
        raise Unaskable("bytes that are no UTF-8 stood here")
    try:
        return text[1:-1].encode()
    except UnicodeEncodeError:
        raise Unaskable("a lone surrogate") from None
