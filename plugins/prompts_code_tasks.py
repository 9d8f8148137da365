"""Prompt source `code_tasks`: 29 small Python functions to write, each with tests; for reward `code`.

They are for trying things out: too few to train on, and too easy to measure a model by. Every fourth is kept
for evaluation. Column `solution` has a right answer in the form that teacher `recorded` reads.

>>> [prompt.columns["entry_point"] for prompt in code_tasks(split="eval", n=2, seed=17)]
['middle', 'rotate']
"""

from collections.abc import Callable, Iterator
from typing import Any

import chainforge as cf

# The function, what it returns, its body, and what its tests compare.
TASKS = """
add_digits(n): the sum of the decimal digits of the whole number n, which may be negative
    return sum(map(int, str(abs(n))))
add_digits(0) == 0; add_digits(-123) == 6; add_digits(999) == 27

count_vowels(text): how many letters of text are vowels (a, e, i, o, u), in capitals or not
    return sum(letter in "aeiou" for letter in text.lower())
count_vowels("") == 0; count_vowels("Education") == 5; count_vowels("rhythm") == 0

is_palindrome(text): True if the letters and digits of text, case aside, read the same backward, else False
    kept = [c for c in text.lower() if c.isalnum()]
    return kept == kept[::-1]
is_palindrome("Never odd, or even.") is True; is_palindrome("ab") is False; is_palindrome("") is True

middle(items): the middle one of the items in sorted order; of two middle ones, the smaller
    return sorted(items)[(len(items) - 1) // 2]
middle([3, 1, 2]) == 2; middle([4, 1, 3, 2]) == 2; middle([7]) == 7

primes(n): the list of all prime numbers below n, in order
    return [k for k in range(2, n) if all(k % d for d in range(2, int(k**0.5) + 1))]
primes(2) == []; primes(12) == [2, 3, 5, 7, 11]; primes(50)[-1] == 47

collatz(n): how many steps it takes from n to 1, halving even numbers and turning odd ones into 3n + 1
    steps = 0
    while n != 1:
        n, steps = (n // 2 if n % 2 == 0 else 3 * n + 1), steps + 1
    return steps
collatz(1) == 0; collatz(6) == 8; collatz(27) == 111

run_lengths(text): the list of (character, length) for each run of equal characters in text
    runs = []
    for c in text:
        runs.append((c, runs.pop()[1] + 1 if runs and runs[-1][0] == c else 1))
    return runs
run_lengths("") == []; run_lengths("aab") == [("a", 2), ("b", 1)]; run_lengths("aba")[2] == ("a", 1)

rotate(items, k): a list with the items moved k places to the right, the last ones coming first
    k %= len(items) or 1
    return items[-k:] + items[:-k] if k else list(items)
rotate([1, 2, 3, 4], 1) == [4, 1, 2, 3]; rotate([], 3) == []; rotate([1, 2, 3], 7) == [3, 1, 2]

to_roman(n): the whole number n, 1 to 3999, as a Roman numeral
    values = 1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1
    text = ""
    for value, letters in zip(values, "M CM D CD C XC L XL X IX V IV I".split()):
        text, n = text + letters * (n // value), n % value
    return text
to_roman(1994) == "MCMXCIV"; to_roman(4) == "IV"; to_roman(3999) == "MMMCMXCIX"

balanced(text): True if the brackets (), [] and {} of text are closed in the right order, else False
    closing, open_ = {")": "(", "]": "[", "}": "{"}, []
    for c in text:
        if c in closing.values():
            open_.append(c)
        elif c in closing and (not open_ or open_.pop() != closing[c]):
            return False
    return not open_
balanced("a(b[c]{d})") is True; balanced("(]") is False; balanced("((") is False; balanced("") is True

flatten(nested): one list of all items of nested, a list that holds lists to any depth, in order
    return [x for item in nested for x in (flatten(item) if isinstance(item, list) else [item])]
flatten([1, [2, [3, []], 4]]) == [1, 2, 3, 4]; flatten([]) == []; flatten([[["a"]]]) == ["a"]

second_largest(numbers): the second largest of the different numbers, or None if there is none
    different = sorted(set(numbers))
    return different[-2] if len(different) > 1 else None
second_largest([3, 3, 1]) == 1; second_largest([5]) is None; second_largest([1, 9, 4, 9]) == 4

word_counts(text): a dict from each word of text, in lower case, to how often it occurs; blanks part words
    words = text.lower().split()
    return {word: words.count(word) for word in words}
word_counts("The cat the") == {"the": 2, "cat": 1}; word_counts("") == {}; word_counts("a  a") == {"a": 2}

gcd_all(numbers): the greatest common divisor of a list of positive whole numbers
    a = numbers[0]
    for b in numbers[1:]:
        while b:
            a, b = b, a % b
    return a
gcd_all([12, 18, 30]) == 6; gcd_all([7]) == 7; gcd_all([4, 9]) == 1

transpose(rows): the list of columns of rows, a list of equally long lists
    return [list(column) for column in zip(*rows)]
transpose([[1, 2], [3, 4], [5, 6]]) == [[1, 3, 5], [2, 4, 6]]; transpose([]) == []; transpose([[1]]) == [[1]]

caesar(text, k): text with every letter of a to z and A to Z moved k places on, from z back to a
    def move(c):
        start = "a" if "a" <= c <= "z" else "A" if "A" <= c <= "Z" else ""
        return chr((ord(c) - ord(start) + k) % 26 + ord(start)) if start else c
    return "".join(map(move, text))
caesar("xyz, A!", 3) == "abc, D!"; caesar(caesar("Hello", 5), -5) == "Hello"; caesar("", 1) == ""

merge(a, b): one sorted list of all numbers of the sorted lists a and b
    return sorted(a + b)
merge([1, 4], [2, 3, 5]) == [1, 2, 3, 4, 5]; merge([], [1]) == [1]; merge([1, 1], [1]) == [1, 1, 1]

fibonacci(n): the list of the first n Fibonacci numbers, which begin with 0 and 1
    numbers = [0, 1]
    while len(numbers) < n:
        numbers.append(numbers[-1] + numbers[-2])
    return numbers[:n]
fibonacci(0) == []; fibonacci(1) == [0]; fibonacci(8) == [0, 1, 1, 2, 3, 5, 8, 13]

longest_run(numbers): the length of the longest run of neighbours in numbers that grow from each to the next
    best = run = 1 if numbers else 0
    for a, b in zip(numbers, numbers[1:]):
        run = run + 1 if b > a else 1
        best = max(best, run)
    return best
longest_run([1, 2, 2, 3, 4]) == 3; longest_run([]) == 0; longest_run([3, 2, 1]) == 1

anagrams(a, b): True if the texts a and b have the same letters equally often, case aside, else False
    return sorted(a.lower()) == sorted(b.lower())
anagrams("Listen", "Silent") is True; anagrams("aab", "abb") is False; anagrams("", "") is True

chunks(items, size): the list of pieces of items with size each, the last one shorter if need be
    return [items[i : i + size] for i in range(0, len(items), size)]
chunks([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]; chunks([], 3) == []; chunks([1], 9) == [[1]]

leap(year): True if year is a leap year of the Gregorian calendar, else False
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
leap(2000) is True; leap(1900) is False; leap(2024) is True; leap(2023) is False

common(a, b): the sorted list of the different items that are both in a and in b
    return sorted(set(a) & set(b))
common([3, 1, 1], [1, 3, 4]) == [1, 3]; common([], [1]) == []; common("abc", "cab") == ["a", "b", "c"]

title(text): text with a capital for the first letter of each word, and the others small
    return " ".join(word.capitalize() for word in text.split(" "))
title("the qUICK fox") == "The Quick Fox"; title("") == ""; title("a b") == "A B"

change(cents): the smallest number of coins of 1, 5, 10 and 25 that make cents
    return cents // 25 + cents % 25 // 10 + cents % 25 % 10 // 5 + cents % 5
change(0) == 0; change(41) == 4; change(99) == 9

hamming(a, b): in how many places the equally long texts a and b differ
    return sum(x != y for x, y in zip(a, b))
hamming("karolin", "kathrin") == 3; hamming("", "") == 0; hamming("a", "b") == 1

perfect(n): True if the whole number n, at least 1, is the sum of its smaller divisors, else False
    return n == sum(d for d in range(1, n) if n % d == 0)
perfect(6) is True; perfect(28) is True; perfect(12) is False; perfect(1) is False

binary(n): the whole number n, at least 0, in binary digits
    return format(n, "b")
binary(0) == "0"; binary(10) == "1010"; binary(255) == "11111111"

power_set(items): the number of different sets, the empty one too, that can be made of the different items
    return 2 ** len(set(items))
power_set([]) == 1; power_set([1, 2, 3]) == 8; power_set("aab") == 4
"""
EVERY = 4  # one task in four is kept for evaluation


def code_tasks(*, split: str, n: int, seed: int) -> Iterator[cf.Prompt]:
    """The first `n` tasks of the split, always in the same order."""
    if split not in ("train", "eval"):
        raise cf.ChainForgeError(f"there is no split called {split!r}", "ask for train or eval")
    for number, task in enumerate(TASKS.strip().split("\n\n"), start=1):
        if (number % EVERY == 0) == (split == "eval") and n > 0:
            n -= 1
            yield prompt_of(task)


def prompt_of(task: str) -> cf.Prompt:
    head, *body, compared = task.splitlines()
    function, _, returns = head.partition(": ")
    name = function.partition("(")[0]
    question = f"Write a Python function {function} that returns {returns}. Put it in a ```python block."
    program = "\n".join([f"def {function}:", *body])
    return cf.Prompt(
        id=f"code-{name}",
        source="code_tasks",
        messages=({"role": "user", "content": question},),
        columns={
            "tests": [f"assert {comparison}" for comparison in compared.split("; ")],
            "entry_point": name,
            "solution": f"{function} returns {returns}.\n####\n```python\n{program}\n```",
        },
    )


@cf.hookimpl
def register_prompt_sources(register: Callable[[str, Any], None]) -> None:
    register("code_tasks", code_tasks)
