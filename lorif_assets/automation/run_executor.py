"""The executor of launched runs: steps share the run's process, which the run tells before it takes a place in a pool."""

from collections.abc import Iterator
from typing import Any, cast

import dagster as dg
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.executor.base import Executor
from dagster._core.executor.in_process import InProcessExecutor

from lorif_assets.automation.dead_runs import PROCESS_TAG, process_tag


class _TellingExecutor(InProcessExecutor):
    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        run = plan_context.dagster_run
        plan_context.instance.add_run_tags(run.run_id, {PROCESS_TAG: process_tag()})
        yield from super().execute(plan_context, execution_plan)


@dg.executor(name="in_process", config_schema=cast("Any", dg.in_process_executor.config_schema))
def in_run_process(context: dg.InitExecutorContext) -> Executor:
    """Return Dagster's own executor of steps in the run's process, whose runs tell that process.

    A daemon that is killed takes its runs with it; by what they told, they are found dead, and what they held is free again.
    """
    dagsters = cast("Any", dg.in_process_executor.executor_creation_fn)(context)
    return _TellingExecutor(dagsters.retries, dagsters.step_dependency_config, dagsters.marker_to_close)
