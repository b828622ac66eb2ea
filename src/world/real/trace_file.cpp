#include "world/real/trace_file.h"

#include <time.h>

#include <cerrno>

#include "base/files.h"
#include "observe/trace_text.h"
#include "world/real/loop.h"

namespace stagecoach::world::real {

base::Result<TraceFile> TraceFile::create(const std::filesystem::path& path, const base::PeerId& self) {
  std::FILE* file = std::fopen(path.c_str(), "we");
  if (file == nullptr) return base::file_error("create", path, errno);
  std::fprintf(file, "{\"worker\":\"%s\"}\n", self.hex().c_str());
  return TraceFile(file);
}

TraceFile::TraceFile(std::FILE* file) : file_(file) {
  timespec t{};
  ::clock_gettime(CLOCK_REALTIME, &t);
  since_1970_ = base::Instant::from_ns(t.tv_sec * 1'000'000'000ll + t.tv_nsec) - monotonic_now();
}

void TraceFile::write(base::Instant at, observe::TraceEvent event) {
  // Times of one file have one offset: a clock that is set meanwhile does not bend the run.
  if (auto* worked = std::get_if<observe::trace::Worked>(&event)) worked->began = worked->began + since_1970_;
  std::fprintf(file_.get(), "%s\n", observe::to_line({at + since_1970_, std::move(event)}).c_str());
}

void TraceFile::arrived(const wire::Message& message, base::Instant now) {
  if (const auto arrival = worker::Tracer::arrival(message)) write(now, *arrival);
}

void TraceFile::given(const worker::Brain& brain, base::OpId op, const worker::ComputeRequest& request) {
  tracer_.begins(request);
  if (const auto work = tracer_.work(brain, request, {})) given_[op] = *work;
}

void TraceFile::done(base::OpId op, base::Instant began, base::Instant ended) {
  const auto it = given_.find(op);
  if (it == given_.end()) return;
  it->second.began = began;
  write(ended, it->second);
  given_.erase(it);
}

void TraceFile::stepped(const worker::Brain& brain, base::StageIndex stage, base::Instant now) {
  if (const auto opened = tracer_.stepped(brain, stage)) write(now, *opened);
}

}  // namespace stagecoach::world::real
