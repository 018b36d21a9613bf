"""What `pip install .` installs is what the repository says."""

import importlib.util
import pathlib
import re
import subprocess
import sys
import tomllib
import zipfile

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]


def files(folder: str) -> list[pathlib.Path]:
  """By their paths in the repository; without what Python keeps beside them."""
  return [
    path.relative_to(REPOSITORY)
    for path in sorted((REPOSITORY / folder).rglob('*'))
    if path.is_file() and path.suffix != '.pyc'
  ]


@pytest.fixture(scope='module')
def project():
  return tomllib.loads((REPOSITORY / 'pyproject.toml').read_text())['project']


def test_requirements_are_the_dependencies_and_those_of_tests(project):
  lines = (REPOSITORY / 'requirements.txt').read_text().splitlines()
  required = [line.partition('#')[0].strip() for line in lines]
  tests = project['optional-dependencies']['tests']
  assert [r for r in required if r] == project['dependencies'] + tests


def test_the_version_is_the_same_everywhere(project):
  log = (REPOSITORY / 'CHANGELOG.md').read_text()
  citation = (REPOSITORY / 'CITATION.cff').read_text()
  versions = re.findall(r'^## \[([\d.]+)\]', log, re.M)
  assert versions[0] == project['version']
  assert f'\nversion: {project["version"]}\n' in citation


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
  """The names in the wheel; pip fetches its build backend where it lacks it."""
  folder = tmp_path_factory.mktemp('wheel')
  command = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '.']
  if importlib.util.find_spec('hatchling'):
    command.append('--no-build-isolation')
  finished = subprocess.run(
    [*command, '--disable-pip-version-check', '-w', str(folder)],
    cwd=REPOSITORY,
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert finished.returncode == 0, finished.stderr
  (file,) = folder.iterdir()
  assert file.name.endswith('-py3-none-any.whl')
  with zipfile.ZipFile(file) as archive:
    return set(archive.namelist())


def test_the_wheel_holds_the_package_the_run_books_and_nothing_else(wheel):
  books = {f'emanet_jax/{p}' for p in files('configs')}
  package = {str(p) for p in files('emanet_jax')}
  inside = {n for n in wheel if '.dist-info/' not in n}
  assert inside == package | books
  assert {
    'emanet_jax/main.py',
    'emanet_jax/py.typed',
    'emanet_jax/evaluation/templates/report.html',
    'emanet_jax/configs/voc.py',  # where `config_flag.find_run_book` looks
  } <= inside
