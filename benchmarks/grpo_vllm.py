"""vLLM's side of the rollout benchmark: the same prompts offline, as many tokens, in bfloat16.

`benchmarks/grpo.py --vllm PYTHON` starts it with a Python that has vLLM.
"""

import tempfile
from argparse import ArgumentParser

from grpo_work import GROUP, PROMPTS, WORKS, Clock, Turns, load_model, make_tokenizer, prompt_texts


def main() -> None:
    arguments = ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("work", choices=WORKS)
    arguments.add_argument("--smollm2", help="the model folder of work b")
    arguments.add_argument("--enforce-eager", action="store_true")
    given = arguments.parse_args()
    work, turns = WORKS[given.work], Turns()
    model = load_model(work, given.smollm2)
    vocab = model.config.vocab_size
    tokenizer = make_tokenizer(work, vocab)
    prompts = [
        {"prompt_token_ids": tokenizer.encode(text, add_special_tokens=False)}
        for text in prompt_texts(work, vocab)
    ]
    from vllm import LLM, SamplingParams

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        del model
        llm = LLM(
            folder,
            skip_tokenizer_init=True,
            dtype="bfloat16",
            max_model_len=512,
            max_num_seqs=PROMPTS * GROUP,
            enforce_eager=given.enforce_eager,
            enable_prefix_caching=True,
        )
    rows = [prompt for prompt in prompts for _ in range(GROUP)]
    how = [
        SamplingParams(temperature=1.0, max_tokens=length, ignore_eos=True, detokenize=False)
        for length in work.lengths
    ]
    clock = Clock()
    while True:
        turns.wait()
        clock.start()
        with clock.phase("rollout"):
            answers = llm.generate(rows, how, use_tqdm=False)
        generated = sum(len(answer.outputs[0].token_ids) for answer in answers)
        turns.tell(clock.stop(generated=generated, trained=0))


if __name__ == "__main__":
    main()
