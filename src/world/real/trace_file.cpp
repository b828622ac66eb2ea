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

namespace {

/// What the monotonic clock lacks to 1970. The tightest of several looks: a process that is interrupted between two clocks is off by as much,
/// and traces of several processes are laid beside each other.
base::Duration since_1970() {
  constexpr int kLooks = 20;
  base::Duration best, tightest = base::Duration::seconds(1);
  for (int i = 0; i < kLooks; ++i) {
    timespec t{};
    const base::Instant before = monotonic_now();
    ::clock_gettime(CLOCK_REALTIME, &t);
    const base::Duration gap = monotonic_now() - before;
    if (gap >= tightest) continue;
    tightest = gap;
    best = base::Instant::from_ns(t.tv_sec * 1'000'000'000ll + t.tv_nsec) - before;
  }
  return best;
}

}  // namespace

TraceFile::TraceFile(std::FILE* file) : file_(file), since_1970_(since_1970()) {}

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
