"""What a text answers: find the answer (`mark`), read it (`meaning` and its kinds), compare two (`agree`).

Plain Python, in time that grows with the length of the text. Nothing here raises, whatever the text.
"""

from chainforge.answer.agree import answer_kind, same_answer
from chainforge.answer.mark import boxed, marked_answer
from chainforge.answer.read import read_answer

__all__ = ["answer_kind", "boxed", "marked_answer", "read_answer", "same_answer"]
