"""get, list, create, update, patch, delete, deletecollection: from a target to an ``Answer``.

No byte of HTTP is read here: bodies come in parsed where their format allows it, ``now`` is
wall-clock seconds. Refusals are raised (``problems``).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from apiguard.demo import admission, options, patching, problems, protobuf
from apiguard.demo.encoding import NotJsonError, Object, decode
from apiguard.demo.negotiation import AVAILABLE, JSON, PROTOBUF, Representation
from apiguard.demo.options import ListOptions, Match
from apiguard.demo.representations import write_list, write_object, write_value
from apiguard.demo.resources import NAMESPACES, PODS, Resource
from apiguard.demo.store import (
    CompactedError,
    ConflictError,
    ExistsError,
    Item,
    MissingError,
    Store,
)
from apiguard.demo.target import Target

BODY_LIMIT = 3 << 20  # bytes, kube-apiserver's


@dataclass(slots=True)
class Answer:
    """A complete response; ``listed`` counts the bytes a LIST read, for the capacity model."""

    code: int
    body: bytes
    content_type: str = JSON
    headers: list[tuple[str, str]] = field(default_factory=list)
    listed: int = 0


def parse_body(resource: Resource, content_type: str, body: bytes) -> Any:
    """The decoded body of a create or update; raises ``ApiError`` 400 or 415."""
    media = content_type.partition(";")[0].strip().lower()
    if media == PROTOBUF and not resource.custom:
        try:
            return protobuf.decode_body(body)
        except (protobuf.ProtobufError, UnicodeDecodeError) as error:
            raise problems.bad_request(f"the object provided is unrecognized: {error}") from None
    if media not in ("", JSON):
        raise problems.unsupported_body(AVAILABLE)
    try:
        return decode(body)
    except NotJsonError as error:
        shown = body.decode("utf-8", "replace")
        raise problems.bad_request(
            f"the object provided is unrecognized (must be of type {resource.kind}): "
            f"couldn't get version/kind; json parse error: {error} ({shown})"
        ) from None


class Verbs:
    """The resource verbs over one store."""

    def __init__(self, store: Store, rng: random.Random) -> None:
        self.store = store
        self.rng = rng

    # --- reading ----------------------------------------------------------------------------

    def find(self, resource: Resource, target: Target) -> Item:
        key = resource.key(target.namespace, target.name)
        item = self.store.collections[resource].get(key)
        if item is None:
            raise problems.not_found(resource, target.name)
        return item

    def get(
        self, resource: Resource, target: Target, representation: Representation, now: float
    ) -> Answer:
        body = write_object(self.find(resource, target), representation, now)
        return Answer(200, body, representation.media)

    def list_revision(self, resource: Resource, wanted: ListOptions) -> int:
        """The revision a list shows; raises 504 when the store has not reached it."""
        if wanted.revision > self.store.revision:
            raise problems.too_large_revision(wanted.revision, self.store.revision)
        return wanted.revision if wanted.match is Match.EXACT else self.store.revision

    def list(
        self,
        resource: Resource,
        target: Target,
        wanted: ListOptions,
        representation: Representation,
        now: float,
    ) -> Answer:
        revision = self.list_revision(resource, wanted)
        page = self._page(resource, target, wanted, revision)
        body = write_list(
            resource, page.items, revision, page.token, page.remaining, representation, now
        )
        return Answer(200, body, representation.media, listed=len(body))

    def _page(
        self, resource: Resource, target: Target, wanted: ListOptions, revision: int
    ) -> _Page:
        collection = self.store.collections[resource]
        try:
            items = collection.items_at(revision)
        except CompactedError:
            raise self._expired(wanted) from None
        scope = _scope(resource, target, wanted)
        found = select(items, scope, wanted.selectors)
        if wanted.start:
            start = f"{scope}/{wanted.start}" if scope else wanted.start
            found = [item for item in found if item.key >= start]
        if not wanted.limit or len(found) < wanted.limit:
            return _Page(found, "", None)
        last = found[wanted.limit - 1].key
        named = wanted.selectors.fields.exact("metadata.name") is not None
        single = named and (scope or not resource.namespaced)
        if single or not _follows(items, last, scope):
            return _Page(found, "", None)
        token = options.encode_token(revision, last, scope, cached=resource.cached)
        remaining = len(found) - wanted.limit if wanted.selectors.empty else None
        return _Page(found[: wanted.limit], token, remaining)

    def _expired(self, wanted: ListOptions) -> problems.ApiError:
        if not wanted.continued:
            return problems.expired()
        error = problems.expired(
            "The provided continue parameter is too old to display a consistent list result. "
            "You can start a new list without the continue parameter, or use the continue token "
            "in this response to retrieve the remainder of the results. Continuing with the "
            "provided token results in an inconsistent list - objects that were created, "
            "modified, or deleted between the time the first chunk was returned and now may "
            "show up in the list."
        )
        # Revision -1: go on from here in whatever is there now.
        error.continue_token = options.encode_token(-1, wanted.start.rstrip("\0"), "")
        return error

    # --- writing ----------------------------------------------------------------------------

    def create(
        self, resource: Resource, target: Target, body: Any, now: float
    ) -> tuple[Item, Object]:
        """The stored item (of a dry run: one nobody can read) and its value."""
        value = admission.for_create(resource, body, target.namespace, self.rng, now)
        if resource.namespaced and not self._namespace_exists(target.namespace):
            raise problems.not_found(NAMESPACES, target.namespace)
        name = value["metadata"]["name"]
        if dry_run(target):
            if self.store.collections[resource].get(resource.key(target.namespace, name)):
                raise problems.already_exists(resource, name)
            return Item(resource, value, 0), value
        try:
            item = self.store.create(resource, value)
        except ExistsError:
            raise problems.already_exists(resource, name) from None
        return item, value

    def update(self, resource: Resource, target: Target, body: Any) -> Item:
        """PUT of an object, or of its status below ``/status``."""
        current = self.find(resource, target)
        expected = _expected_revision(body)
        if target.subresource == "status":
            value = admission.for_status(resource, body, current)
        else:
            value = admission.for_update(resource, body, current)
        return self._replace(resource, target, value, current, expected)

    def patch(
        self, resource: Resource, target: Target, content_type: str, body: bytes, now: float
    ) -> Item:
        """PATCH in any of the three formats; server-side apply is answered 415."""
        current = self.find(resource, target)
        patched = apply_patch(resource, current.value, content_type, body)
        expected = _expected_revision(patched)
        if expected == str(current.revision):
            expected = ""
        if target.subresource == "status":
            value = admission.for_status(resource, patched, current)
        else:
            value = admission.for_update(resource, patched, current)
        return self._replace(resource, target, value, current, expected)

    def _replace(
        self, resource: Resource, target: Target, value: Object, current: Item, expected: str
    ) -> Item:
        if expected and expected != str(current.revision):
            raise problems.conflict(resource, current.name)
        metadata = value["metadata"]
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            return self.store.delete(resource, current.key)
        if dry_run(target):
            return Item(resource, value, current.revision)
        try:
            return self.store.update(resource, value, expected)
        except ConflictError:
            raise problems.conflict(resource, current.name) from None
        except MissingError:
            raise problems.not_found(resource, current.name) from None

    def delete(
        self,
        resource: Resource,
        target: Target,
        given: Object,
        representation: Representation,
        now: float,
    ) -> Answer:
        """DELETE of one object with its DeleteOptions."""
        item = self.find(resource, target)
        check_preconditions(resource, item, given)
        dry = dry_run(target) or bool(given.get("dryRun"))
        removed = item if dry else self.remove(resource, item, now, _grace(target, given))
        if resource.returned:
            return Answer(200, write_object(removed, representation, now), representation.media)
        found: Object = {"name": item.name}
        if resource.group:
            found["group"] = resource.group
        found["kind"] = resource.plural
        found["uid"] = item.value["metadata"]["uid"]
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": found,
        }
        return Answer(200, write_value(status, representation), representation.media)

    def delete_collection(
        self,
        resource: Resource,
        target: Target,
        wanted: ListOptions,
        representation: Representation,
        now: float,
    ) -> Answer:
        """Removes what the options list and answers with that list."""
        page = self._page(resource, target, wanted, self.store.revision)
        revision = self.store.revision
        if not dry_run(target):
            for item in page.items:
                self.remove(resource, item, now)
        body = write_list(
            resource, page.items, revision, page.token, page.remaining, representation, now
        )
        return Answer(200, body, representation.media)

    def remove(self, resource: Resource, item: Item, now: float, grace: int | None = None) -> Item:
        """Deletes at once, or marks an object that finalizers still hold.

        There is no kubelet to wait for: ``grace`` periods end immediately, yet a pod is seen
        marked before it is gone, as everywhere. A namespace takes its contents along.
        """
        metadata = item.value["metadata"]
        if metadata.get("finalizers"):
            if metadata.get("deletionTimestamp"):
                return item
            marked = {
                **metadata,
                "deletionTimestamp": admission.timestamp(now),
                "deletionGracePeriodSeconds": 0,
            }
            value = admission.ordered_as(resource, {**item.value, "metadata": marked})
            return self.store.update(resource, value)
        if resource is NAMESPACES:
            self._empty_namespace(item.name)
        if resource is PODS:
            self._mark_deleted(item, now, grace)
        return self.store.delete(resource, item.key)

    def _mark_deleted(self, pod: Item, now: float, grace: int | None) -> None:
        spec = pod.value.get("spec") or {}
        seconds = spec.get("terminationGracePeriodSeconds", 30) if grace is None else grace
        if not spec.get("nodeName"):
            seconds = 0  # it never ran
        metadata = {
            **pod.value["metadata"],
            "deletionTimestamp": admission.timestamp(now + seconds),
            "deletionGracePeriodSeconds": seconds,
            "generation": pod.value["metadata"].get("generation", 0) + 1,
        }
        self.store.update(PODS, admission.ordered_as(PODS, {**pod.value, "metadata": metadata}))

    def _empty_namespace(self, namespace: str) -> None:
        for resource, collection in self.store.collections.items():
            if not resource.namespaced:
                continue
            for item in collection.items():
                if item.namespace == namespace:
                    self.store.delete(resource, item.key)

    def _namespace_exists(self, namespace: str) -> bool:
        return self.store.collections[NAMESPACES].get(namespace) is not None


@dataclass(slots=True)
class _Page:
    items: list[Item] | tuple[Item, ...]
    token: str
    remaining: int | None


def _follows(items: tuple[Item, ...], last: str, scope: str) -> bool:
    """Whether anything of the scope comes behind ``last``, selected or not: a reader that stops
    there cannot know."""
    prefix = f"{scope}/" if scope else ""
    return any(item.key > last and item.key.startswith(prefix) for item in items)


def _scope(resource: Resource, target: Target, wanted: ListOptions) -> str:
    """The namespace listed, "" for all: a field selector may name the only one there is to read."""
    if not resource.namespaced:
        return ""
    return target.namespace or wanted.selectors.fields.exact("metadata.namespace") or ""


def select(
    items: tuple[Item, ...], namespace: str, selectors: options.Selectors
) -> list[Item] | tuple[Item, ...]:
    """The items of a namespace ("" = all) that both selectors match."""
    if namespace:
        items = tuple([item for item in items if item.namespace == namespace])
    if selectors.empty:
        return items
    labels, fields = selectors.labels, selectors.fields
    found = items if labels.empty else [i for i in items if labels.matches(i.labels)]
    return found if fields.empty else [i for i in found if fields.matches(i.fields)]


def apply_patch(resource: Resource, value: Object, content_type: str, body: bytes) -> Any:
    """``value`` patched; raises ``ApiError`` 400, 415 or 422."""
    media = content_type.partition(";")[0].strip().lower()
    formats = {
        patching.JSON_PATCH: patching.json_patch,
        patching.MERGE_PATCH: patching.merge_patch,
        patching.STRATEGIC_PATCH: patching.strategic_patch,
    }
    if media not in formats or (resource.custom and media == patching.STRATEGIC_PATCH):
        raise problems.unsupported_patch()
    try:
        return formats[media](value, decode(body))
    except NotJsonError as error:
        raise problems.bad_request(f"error decoding patch: {error}") from None
    except patching.PatchError as error:
        if error.malformed:
            raise problems.bad_request(str(error)) from None
        name = str(value["metadata"]["name"])
        raise problems.ApiError(
            422,
            "Invalid",
            f"the server rejected our request due to an error in our request: {error}",
            problems.details(resource, name),
        ) from None


def _grace(target: Target, given: Object) -> int | None:
    """gracePeriodSeconds of the query, else of the DeleteOptions; None when neither has it."""
    text = target.query.get("gracePeriodSeconds")
    if text.isdigit():
        return int(text)
    found = given.get("gracePeriodSeconds")
    return found if isinstance(found, int) else None


def dry_run(target: Target) -> bool:
    return "All" in target.query.all("dryRun")


def check_preconditions(resource: Resource, item: Item, given: Object) -> None:
    """DeleteOptions.preconditions; raises ``ApiError`` 409."""
    wanted = given.get("preconditions") or {}
    metadata = item.value["metadata"]
    for name, label in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        if wanted.get(name) and wanted[name] != metadata[name]:
            why = (
                f"Precondition failed: {label} in precondition: {wanted[name]}, "
                f"{label} in object meta: {metadata[name]}"
            )
            raise problems.conflict(resource, item.name, why)


def _expected_revision(body: Any) -> str:
    metadata = body.get("metadata") if isinstance(body, dict) else None
    found = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    return str(found) if found else ""
