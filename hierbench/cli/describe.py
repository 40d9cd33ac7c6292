"""``hierbench describe``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hierbench.cli.common import console


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("describe")(describe)


def describe(
    dataset: Annotated[str, typer.Option(help="Dataset.")],
    model: Annotated[str, typer.Option(help="Model, as the endpoint calls it.")],
    base_url: Annotated[
        str | None, typer.Option(help="Address of the endpoint. [OPENAI_BASE_URL, else the openai package's]")
    ] = None,
    count: Annotated[int, typer.Option(help="Sentences a class.")] = 8,
    images: Annotated[int, typer.Option(help="Images a class, for a multimodal model; 0 is text only.")] = 0,
    split: Annotated[str, typer.Option(help="Split of the images.")] = "train",
    data_root: Annotated[Path | None, typer.Option(help="Folder of the image data. [HIERBENCH_DATA_ROOT]")] = None,
    out: Annotated[Path | None, typer.Option(help="The file. [./DATASET.descriptions.json]")] = None,
    classes: Annotated[
        list[str] | None, typer.Option(help="Ask about these now: ids, names or wildcards. [all]")
    ] = None,
    concurrency: Annotated[int, typer.Option(help="Requests at a time.")] = 4,
    again: Annotated[int, typer.Option(help="How often a class is asked about again for what was refused.")] = 3,
    seed: Annotated[int | None, typer.Option(help="Seed of the choice of images; sent, if given.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Sent, if given.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for an answer.")] = 300.0,
    language: Annotated[str, typer.Option(help="Language of the sentences, as a tag.")] = "en",
    licence: Annotated[str, typer.Option(help="Licence of the sentences, which the model's terms decide.")] = (
        "not stated"
    ),
    resume: Annotated[bool, typer.Option(help="Go on from the journal beside the file.")] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show one question and their number; ask nothing.")
    ] = False,
) -> None:
    """Write a descriptions file: ask a language model what every class looks like.

    Any endpoint with OpenAI's chat interface will do. Its key is read from OPENAI_API_KEY and from nowhere else.
    """
    from hierbench.cli.bars import phase_bars
    from hierbench.datasets.describing.run import Describer, DescribeRequest

    describer = Describer(
        DescribeRequest(
            dataset=dataset,
            model=model,
            out=out,
            base_url=base_url,
            count=count,
            images=images,
            split=split,
            data_root=data_root,
            classes=tuple(classes or ()),
            concurrency=concurrency,
            again=again,
            seed=seed,
            temperature=temperature,
            timeout=timeout,
            language=language,
            licence=licence,
            resume=resume,
        )
    )
    if dry_run:
        console().print(describer.preview(), soft_wrap=True)
        return
    with phase_bars() as report:
        done = describer.run(lambda step, steps, kept: report("classes", step, steps, {"sentences": kept}))
    if done.file is None:
        missing = f"{done.complete} of {done.classes} classes have their sentences; the file is written when all have"
        console().print(f"journal: {describer.journal.path}\n{missing}", soft_wrap=True)
        return
    console().print(f"descriptions: {done.file}", soft_wrap=True)
