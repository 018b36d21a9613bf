"""A bucket in memory, behind the part of GCS's JSON API that is used here.

TensorStore, gcsfs and Google's client all speak to it when `environment` is
set. Objects have generations, and conditions on these hold, as OCDBT needs.
"""

import base64
import contextlib
import hashlib
import http.server
import itertools
import json
import re
import sys
import threading
import urllib.parse

NAME = 'bucket'
_UPDATED = '2026-01-01T00:00:00.000Z'


class Bucket:
  """Objects by name, and how often the server was asked for what.

  Attributes:
    objects: Name → content.
    refused: Methods that are answered with 403, as for one who may only read.
    url: Of the server.
  """

  def __init__(self):
    self.objects, self.refused, self.url = {}, set(), ''
    self._generations, self._counter = {}, itertools.count(1)
    self._uploads, self._lock = {}, threading.RLock()

  def below(self, folder: str) -> dict[str, bytes]:
    """The objects of a folder, by their paths in it."""
    start = f'{folder}/'
    with self._lock:
      return {
        name.removeprefix(start): content
        for name, content in sorted(self.objects.items())
        if name.startswith(start)
      }

  def delete(self, pattern: str) -> list[str]:
    """Removes what matches, as a kill or damage does; returns the names."""
    with self._lock:
      found = [name for name in self.objects if re.fullmatch(pattern, name)]
      for name in found:
        del self.objects[name]
    return found

  def put(self, name: str, content: bytes) -> dict:
    with self._lock:
      self.objects[name] = content
      self._generations[name] = next(self._counter)
      return self.describe(name)

  def describe(self, name: str) -> dict:
    content = self.objects[name]
    digest = base64.b64encode(hashlib.md5(content).digest()).decode()
    return {
      'kind': 'storage#object',
      'bucket': NAME,
      'name': name,
      'size': str(len(content)),
      'generation': str(self._generations[name]),
      'metageneration': '1',
      'md5Hash': digest,
      'timeCreated': _UPDATED,
      'updated': _UPDATED,
    }

  def answer(self, method, path, query, headers, body):
    """The (status, headers, body) of a request."""
    if method in self.refused:
      return 403, {}, {'error': {'code': 403, 'message': 'Forbidden'}}
    path = path.removeprefix('/download')
    if not path.startswith((f'/storage/v1/b/{NAME}', '/upload/')):
      return _none()
    name = urllib.parse.unquote(path.partition('/o/')[2]) or query.get('name')
    with self._lock:
      if path.startswith('/upload/'):
        return self._upload(query, headers, body, name)
      if not name:
        is_list = path.endswith('/o')
        return 200, {}, self._list(query) if is_list else {'name': NAME}
      source, moves, target = path.partition('/moveTo/o/')
      if moves:
        source = urllib.parse.unquote(source.partition('/o/')[2])
        if source not in self.objects:
          return _none()
        return (
          200,
          {},
          self.put(urllib.parse.unquote(target), self.objects.pop(source)),
        )
      if failed := self._condition(name, query):
        return failed, {}, b''
      if name not in self.objects:
        return _none()
      if method == 'DELETE':
        del self.objects[name]
        return 204, {}, b''
      if query.get('alt') == 'media':
        return self._content(name, headers)
      return 200, {}, self.describe(name)

  def _condition(self, name, query) -> int:
    """412 or 304 where the object's generation is not as asked for, else 0."""
    now = str(self._generations[name]) if name in self.objects else '0'
    if query.get('ifGenerationMatch', now) != now:
      return 412
    return 304 if query.get('ifGenerationNotMatch') == now != '0' else 0

  def _content(self, name, headers):
    content, status = self.objects[name], 200
    own = {'x-goog-generation': str(self._generations[name])}
    asked = re.fullmatch(r'bytes=(\d*)-(\d*)', headers.get('Range', ''))
    if asked:
      first, last = asked.groups()
      if first:
        begin, end = int(first), int(last or len(content) - 1) + 1
      else:
        begin, end = max(0, len(content) - int(last)), len(content)
      end = min(end, len(content))
      if begin >= max(end, 1):
        return 416, own, b''
      own['Content-Range'] = f'bytes {begin}-{end - 1}/{len(content)}'
      content, status = content[begin:end], 206
    return status, own, content

  def _list(self, query) -> dict:
    prefix, delimiter = query.get('prefix', ''), query.get('delimiter')
    items, prefixes = [], set()
    for name in sorted(self.objects):
      if not name.startswith(prefix) or name < query.get('startOffset', ''):
        continue
      if 'endOffset' in query and name >= query['endOffset']:
        continue
      rest = name.removeprefix(prefix)
      if delimiter and delimiter in rest:
        prefixes.add(prefix + rest.partition(delimiter)[0] + delimiter)
      else:
        items.append(self.describe(name))
    return {'items': items, 'prefixes': sorted(prefixes)}

  def _upload(self, query, headers, body, name):
    kind = query['uploadType']
    if kind == 'resumable' and 'upload_id' not in query:
      key = str(next(self._counter))
      self._uploads[key] = [name or json.loads(body)['name'], b'']
      path = f'/upload/storage/v1/b/{NAME}/o?uploadType=resumable'
      return 200, {'Location': f'{self.url}{path}&upload_id={key}'}, b''
    if kind == 'resumable':
      upload = self._uploads[query['upload_id']]
      upload[1] += body
      if headers.get('Content-Range', '').endswith('/*'):
        return 308, {'Range': f'bytes=0-{len(upload[1]) - 1}'}, b''
      return 200, {}, self.put(*upload)
    if kind == 'multipart':
      boundary = re.search(r'boundary="?([^";]+)', headers['Content-Type'])
      _, about, content = body.split(b'--' + boundary[1].encode(), 2)
      content = content.rpartition(b'--' + boundary[1].encode() + b'--')[0]
      name = json.loads(re.split(rb'\r?\n\r?\n', about, maxsplit=1)[1])['name']
      body = re.split(rb'\r?\n\r?\n', content, maxsplit=1)[1]
      body = re.sub(rb'\r?\n\Z', b'', body)
    if failed := self._condition(name, query):
      return failed, {}, b''
    return 200, {}, self.put(name, body)


def _none():
  return 404, {}, {'error': {'code': 404, 'message': 'Not Found'}}


@contextlib.contextmanager
def serving():
  """Gives a bucket whose server lives as long as the context."""
  bucket = Bucket()

  class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True

    def _answer(self):
      url = urllib.parse.urlsplit(self.path)
      query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
      body = self.rfile.read(int(self.headers.get('Content-Length', 0)))
      status, headers, content = bucket.answer(
        self.command, url.path, query, self.headers, body
      )
      if isinstance(content, dict):
        content = json.dumps(content).encode()
        headers = {**headers, 'Content-Type': 'application/json'}
      self.send_response(status)
      for key, value in headers.items():
        self.send_header(key, value)
      self.send_header('Content-Length', str(len(content)))
      self.end_headers()
      self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = _answer

    def log_message(self, *args):
      pass

  class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
      if not isinstance(sys.exception(), ConnectionError):  # gcsfs hangs up
        super().handle_error(request, client_address)

  with Server(('127.0.0.1', 0), Handler) as server:
    bucket.url = f'http://127.0.0.1:{server.server_port}'
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield bucket
    server.shutdown()


def environment(bucket: Bucket) -> dict[str, str]:
  """What points all clients to the server, with no look for credentials."""
  return {
    'FSSPEC_GCS': json.dumps({'token': 'anon'}),
    'GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT': 'false',  # gRPC, for other buckets
    'GOOGLE_AUTH_TOKEN_FOR_TESTING': 'none',
    'CLOUD_STORAGE_EMULATOR_ENDPOINT': bucket.url,  # ArrayRecord's
    'STORAGE_EMULATOR_HOST': bucket.url,
    'TENSORSTORE_GCS_HTTP_URL': bucket.url,
  }
