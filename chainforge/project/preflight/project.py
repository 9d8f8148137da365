"""All of it."""

from chainforge.config.loading import read_params
from chainforge.config.run import RuntimeSettings
from chainforge.plugins import Plugins
from chainforge.project.claims import check_outputs
from chainforge.project.graph import read_graph
from chainforge.project.preflight.components import check_components
from chainforge.project.preflight.device import check_device, check_training
from chainforge.project.preflight.engine import check_engines
from chainforge.project.preflight.gates import check_gates
from chainforge.project.preflight.input_files import check_inputs
from chainforge.project.preflight.names import check_names
from chainforge.project.preflight.rewards import check_rewards
from chainforge.project.preflight.texts import check_texts
from chainforge.project.preflight.trackers import check_trackers


def check_project(plugins: Plugins, runtime: RuntimeSettings) -> None:
    """Raise ChainForgeError for what would stop a step after others have worked for hours."""
    params, graph = read_params(), read_graph()
    check_texts(params)
    check_outputs(graph.values(), graph.values())
    check_names(params, graph)
    check_gates(params, graph)
    check_inputs(graph)
    check_components(graph, plugins)
    check_rewards(graph, plugins)
    check_trackers(runtime.trackers)
    check_device(runtime.device)
    check_training(graph, runtime.device)
    check_engines(graph, runtime)
