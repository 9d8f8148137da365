"""Every verb and its settings class, for those that look at the whole graph."""

from collections.abc import Mapping

from pydantic import BaseModel

from chainforge.config.bench import BenchSettings
from chainforge.config.collect import CollectSettings
from chainforge.config.distill import DistillSettings
from chainforge.config.evaluate import EvaluateSettings
from chainforge.config.filter import FilterSettings
from chainforge.config.gate import GateSettings
from chainforge.config.grpo import GrpoSettings
from chainforge.config.prompts import PromptsSettings
from chainforge.config.report import ReportSettings
from chainforge.config.sample import SampleSettings
from chainforge.config.sft import SftSettings

VERBS: Mapping[str, type[BaseModel]] = {
    "prompts": PromptsSettings,
    "bench": BenchSettings,
    "collect": CollectSettings,
    "filter": FilterSettings,
    "sft": SftSettings,
    "distill": DistillSettings,
    "grpo": GrpoSettings,
    "sample": SampleSettings,
    "evaluate": EvaluateSettings,
    "gate": GateSettings,
    "report": ReportSettings,
}
