"""Generators of clients from the OpenAPI description: airflow-mcp-server generates tools when it starts, and
openapi-python-client generates code."""

import asyncio
import copy
import json
import pathlib
import subprocess
import sys
import tempfile

import aiohttp
from airflow_mcp_server.toolset import AirflowOpenAPIToolset

# The numbers of tools and files that the two generate from Airflow's own description.
FEWEST_TOOLS, FEWEST_FILES = 128, 300


def problems(description, url, token):
    """Returns the errors of both generators."""
    found = [f"{where}: is written in a way that generators do not read" for where in unusual(description, "")]
    # A copy, because airflow-mcp-server resolves the references in place.
    tools = asyncio.run(count_tools(copy.deepcopy(description), url, token))
    if tools < FEWEST_TOOLS:
        found.append(f"airflow-mcp-server makes {tools} tools")
    found += generate(description)
    return found


def unusual(node, where):
    """Yields the paths of a list of types and of the schema `true`, which Airflow's description does not contain."""
    if isinstance(node, dict):
        if isinstance(node.get("type"), list) or node.get("schema") is True or node.get("items") is True:
            yield where
        for name, value in node.items():
            yield from unusual(value, f"{where}/{name}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from unusual(value, f"{where}/{index}")


async def count_tools(description, url, token):
    async with aiohttp.ClientSession(base_url=url, headers={"Authorization": f"Bearer {token}"}) as session:
        tools = AirflowOpenAPIToolset(description, allow_mutations=True, session=session)
        # Calls one tool, with a parameter.
        await tools.call_tool("get_dags", {"limit": 1})
        return len(tools.list_tools())


def generate(description):
    """Generates a client as a Python package; returns the problems."""
    with tempfile.TemporaryDirectory() as folder:
        path, made = pathlib.Path(folder, "openapi.json"), pathlib.Path(folder, "made")
        path.write_text(json.dumps(description))
        # Disables the hooks, which format the code.
        config = pathlib.Path(folder, "config.yaml")
        config.write_text("post_hooks: []\n")
        program = pathlib.Path(sys.executable).with_name("openapi-python-client")
        command = [program, "generate", "--path", path, "--config", config, "--meta", "none", "--output-path", made]
        output = subprocess.run(command, capture_output=True, text=True)
        files = list(made.rglob("*.py"))
        broken = [file.name for file in files if not is_python(file)]
    if len(files) >= FEWEST_FILES and not broken:
        return []
    return [f"openapi-python-client makes {len(files)} files, broken {broken}: {(output.stdout + output.stderr)[:500]}"]


def is_python(file):
    try:
        compile(file.read_text(), file.name, "exec")
    except SyntaxError:
        return False
    return True
