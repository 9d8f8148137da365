"""All of it."""

from chainforge.claims import check_outputs
from chainforge.config.loading import read_params
from chainforge.config.run import RuntimeSettings
from chainforge.graph import read_graph
from chainforge.plugins import Plugins
from chainforge.preflight.components import check_components
from chainforge.preflight.device import check_device
from chainforge.preflight.inputs import check_inputs
from chainforge.preflight.names import check_names
from chainforge.preflight.rewards import check_rewards
from chainforge.preflight.texts import check_texts


def check_project(plugins: Plugins, runtime: RuntimeSettings) -> None:
    """Raise ChainForgeError for what would stop a step after others have worked for hours."""
    params, graph = read_params(), read_graph()
    check_texts(params)
    check_outputs(graph.values(), graph.values())
    check_names(params, graph)
    check_inputs(graph)
    check_components(graph, plugins)
    check_rewards(graph, plugins)
    check_device(runtime.device)
