"""``stylemill optimize``: paint one picture by optimising its pixels."""

from __future__ import annotations

from collections.abc import Sequence

from stylemill.cli.arguments import parse
from stylemill.cli.output import result as add_result
from stylemill.cli.terminal import LiveLine, Steps, duration
from stylemill.errors import ConfigError, ImageError, PathConflict
from stylemill.evaluation.config import OptimizeConfig


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    config = parse(OptimizeConfig, "optimize", "Paint one picture by optimising its pixels.", arguments)
    return 0 if config is None else run(config)


def run(config: OptimizeConfig) -> int:
    """Optimise, write the picture, the loss curve and the page, and return the exit code."""
    import pyarrow as pa

    from stylemill.evaluation.judge import load_judge
    from stylemill.evaluation.measure import load_source, to_png
    from stylemill.evaluation.optimize import optimize_pixels
    from stylemill.evaluation.reporting import write_optimization_page
    from stylemill.images.isolation.client import IsolatedDecoder
    from stylemill.images.options import DecodeOptions
    from stylemill.manifest.schema import to_parquet
    from stylemill.storage import Storage, join, resolve
    from stylemill.storage.user_errors import write_config

    storage, out = Storage(config.storage), resolve(config.out)
    assert config.judge.style_image is not None
    judge = load_judge(storage, config.judge, style_image=config.judge.style_image)
    with IsolatedDecoder(DecodeOptions()) as decoder:
        try:
            source_HWC = load_source(storage, decoder, resolve(config.content), config.size_px)
        except (ImageError, PathConflict) as failure:
            raise ConfigError(
                "content", config.content, f"cannot be painted ({failure})", "give another image"
            ) from None
    write_config(storage, config, "optimize")
    line = LiveLine()

    def show(step: int, loss: float) -> None:
        steps = Steps(done=step, total=config.iterations, unit="iterations", note=f"loss {loss:.3f}")
        line.show(f"iteration {step:,}/{config.iterations:,}, loss {loss:.3f}", steps)

    try:
        found = optimize_pixels(
            judge,
            source_HWC,
            iterations=config.iterations,
            optimizer=config.optimizer,
            start=config.start,
            gram=config.gram,
            learning_rate=config.learning_rate,
            seed=config.seed,
            on_progress=show,
        )
    finally:
        line.close()
    storage.write_bytes(join(out, "result.png"), to_png(found.result_HWC))
    curve = pa.table({"iteration": range(len(found.losses)), "loss": found.losses, "seconds": found.seconds})
    storage.write_bytes(join(out, "curve.parquet"), to_parquet(curve))
    first, last = found.losses[0], found.losses[-1]
    print(f"loss {first:.3f} -> {last:.3f} in {config.iterations:,} iterations, {duration(found.seconds[-1])}")
    print(f"picture: {join(out, 'result.png')}")
    add_result(loss=last, iterations=config.iterations, paths={"picture": join(out, "result.png")})
    print(f"page:    {write_optimization_page(storage, out, config, judge, source_HWC, found)}")
    return 0
