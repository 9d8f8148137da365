"""Folders, programs and saved work that are not as they should be."""

from malformed.case import Case, both, folder, gone, link, nothing, put, write

SFT = "python -m stages.lock lock && python -m stages.sft sft_cold_start"
LOCK_WRITTEN = (r"^plugins\.lock\.json$",)
CASES = [
    Case(
        tried="git is not there",
        spoil=nothing,
        command='p=$(command -v python); PATH=/nowhere "$p" -m chainforge plugins diff',
        says="git",
    ),
    Case(
        tried="no git repository",
        spoil=gone(".git"),
        command="chainforge plugins diff v1",
        says="not a git repository",
    ),
    Case(
        tried="so little processor time",
        spoil=nothing,
        command="ulimit -t 3; python -m stages.grpo grpo_reasoning",
        says="processor time",
    ),
    Case(tried="no .dvc", spoil=gone(".dvc"), command="dvc repro"),
    Case(
        tried="PYTHONHASHSEED is a word",
        spoil=nothing,
        command="PYTHONHASHSEED=abc python -m stages.lock lock",
        says="PYTHONHASHSEED must be",
    ),
    Case(
        tried="standard error is full",
        spoil=put("run.seed", -1),
        command="python -m stages.lock lock 2> /dev/full",
        says="run.seed",
    ),
    Case(
        tried="a folder of the user's beside an output is left alone",
        spoil=both(
            folder("checkpoints/qwen_sft_ckpt.partial", "mine.txt"), put("sft_cold_start.num_epochs", -1.0)
        ),
        command=SFT,
        changes=LOCK_WRITTEN,
    ),
    Case(
        tried="a link beside an output is left alone",
        spoil=both(
            link("checkpoints/qwen_sft_ckpt.partial", "../outside"), put("sft_cold_start.num_epochs", -1.0)
        ),
        command=SFT,
        changes=LOCK_WRITTEN,
    ),
    Case(
        tried="the data are a file",
        spoil=both(gone("data/cot"), write("data/cot", "x")),
        command="python -m stages.filter filter_cot",
        says="data/cot",
    ),
    Case(
        tried="the code was edited after the lock",
        spoil=lambda clone: write(
            "plugins/reward_correct.py",
            (clone.folder / "plugins/reward_correct.py").read_text() + "\nMORE = 1\n",
        )(clone),
        command="python -m stages.grpo grpo_reasoning",
        says="edited since|lock",
    ),
]
