"""jax.jit whose calls can be watched, for encoders with the one setting that pays on a CPU."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")

# XLA:CPU's library fusions are quicker for reductions, but its plain matrix products are not: with
# reductions alone left to the library MiniLM-L6's forward pass takes some 5 % less (jaxlib 0.10).
CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}


@functools.cache
def options() -> dict[str, str] | None:
    """Compiler options for this backend; None where it is no CPU, or does not know them."""
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda: 0, compiler_options=CPU_OPTIONS)()
    except Exception:  # whatever a jaxlib that lacks the option raises: it is only about speed
        return None
    return dict(CPU_OPTIONS)


Watch = Callable[[jax.stages.Wrapped, tuple[Any, ...], dict[str, Any]], None]
_WATCH: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Within: `watch` is shown every call of a `counted_jit` program, before it runs."""
    token = _WATCH.set(watch)
    try:
        yield
    finally:
        _WATCH.reset(token)


def encoder_jit(
    function: Callable[P, R],
    *,
    static_argnames: str | tuple[str, ...] = (),
    donate_argnames: str | tuple[str, ...] = (),
) -> Callable[P, R]:
    """`counted_jit` of a function that runs an encoder, with `options`."""
    return counted_jit(
        function, static_argnames=static_argnames, donate_argnames=donate_argnames, options=options
    )


def counted_jit(
    function: Callable[P, R],
    *,
    static_argnames: str | tuple[str, ...] = (),
    donate_argnames: str | tuple[str, ...] = (),
    options: Callable[[], dict[str, str] | None] = lambda: None,
) -> Callable[P, R]:
    """`jax.jit` whose calls are seen by `watched`; the backend is asked for at the first call."""

    @functools.cache
    def compiled() -> jax.stages.Wrapped:
        return jax.jit(
            function,
            static_argnames=static_argnames,
            donate_argnames=donate_argnames,
            compiler_options=options(),
        )

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        watch = _WATCH.get()
        if watch is not None:  # before the call, which may take its arguments' memory
            watch(compiled(), args, kwargs)
        return compiled()(*args, **kwargs)

    # As jax.jit has it: how many shapes have been compiled.
    call._cache_size = lambda: compiled()._cache_size()  # type: ignore[attr-defined]
    return call
