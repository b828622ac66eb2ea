#include "observe/accounting.h"

#include <algorithm>

#include "base/check.h"

namespace stagecoach::observe {

using base::Duration;
using base::Instant;
using base::Step;

Parts& Parts::operator+=(const Parts& more) {
  for (std::size_t i = 0; i < kCount; ++i) time[i] = time[i] + more.time[i];
  return *this;
}

Duration Parts::total() const {
  Duration sum;
  for (const Duration& each : time) sum = sum + each;
  return sum;
}

double Parts::share(Part part) const {
  const auto all = static_cast<double>(total().ns());
  return all > 0 ? static_cast<double>(time[part].ns()) / all : 0;
}

Accounting::Accounting(std::uint64_t stages) : stages_(stages), settled_(stages) { CHECK(stages > 0, "a run has a stage"); }

void Accounting::feed(Instant now, WorkerNumber worker, const TraceEvent& event) {
  std::visit([&](const auto& what) { on(now, worker, what); }, event);
}

Accounting::StepRecord& Accounting::record(Step step, base::Attempt attempt) {
  StepRecord& found = records_[step];
  if (found.attempt < attempt) {
    found = StepRecord{};
    found.attempt = attempt;
  }
  return found;
}

Accounting::Journey& Accounting::journey(StepRecord& record, std::uint64_t microbatch) {
  while (record.journeys.size() <= microbatch) {
    Journey& fresh = record.journeys.emplace_back();
    fresh.forward.resize(stages_);
    fresh.backward.resize(stages_);
  }
  return record.journeys[microbatch];
}

void Accounting::on(Instant now, WorkerNumber number, const trace::Opened& event) {
  Worker& worker = workers_[number];
  if (!began_) began_ = now;
  if (event.after_view) attempt_opened(event.attempt);
  if (worker.counted && event.after_view) lose(now, worker);
  else if (worker.counted) close(now, worker);
  worker = Worker{};
  worker.stage = event.stage.value();
  worker.counted = true;
  worker.after_view = event.after_view;
  worker.step = event.step;
  worker.attempt = event.attempt;
  worker.opened = worker.mark = now;
  record(event.step, event.attempt);
  // A worker has at most the step before its own open; whatever is older than that at all of them is over.
  Step oldest = event.step;
  for (const auto& [other, theirs] : workers_)
    if (theirs.counted) oldest = std::min(oldest, theirs.step);
  records_.erase(records_.begin(), records_.lower_bound(oldest));
}

void Accounting::on(Instant now, WorkerNumber number, const trace::Worked& event) {
  Worker& worker = workers_[number];
  if (!worker.counted) return;
  if (event.attempt != worker.attempt || event.step != worker.step) return worked_in_vain(now, worker, event);
  StepRecord& step = record(event.step, event.attempt);
  const std::uint64_t m = event.microbatch.value();
  Journey& way = journey(step, m);
  const bool forward = event.kind == trace::Kind::forward;
  if (worker.stage == 0 && way.cut == Instant::never()) way.cut = worker.opened;
  const Item item{worker.stage, event.kind, m};
  if (event.began > worker.mark) add_wait(worker, wait(step, item, worker.mark, event.began));
  const Instant began = std::max(event.began, worker.mark);
  worker.parts[Parts::busy] = worker.parts[Parts::busy] + (now - began);
  worker.mark = now;
  ++worker.works;
  if (forward && worker.stage + 1 < stages_) way.forward[worker.stage + 1].made = now;
  if (event.kind == trace::Kind::backward && worker.stage > 0) way.backward[worker.stage - 1].made = now;
  if (!step.last || now >= step.last_end) step.last_end = now, step.last = item;
  if (!awaits_work_ || event.attempt != newest_attempt_) return;
  awaits_work_ = false;
  for (std::size_t i = incidents_.size() - open_incidents_; i < incidents_.size(); ++i)
    if (incidents_[i].attempts > 0) incidents_[i].to_work = event.began - incidents_[i].at;
}

void Accounting::worked_in_vain(Instant now, Worker& worker, const trace::Worked& event) {
  in_vain(now - event.began, 1);
  if (worker.works > 0 || now <= worker.mark) return;
  worker.parts[Parts::recovery] = worker.parts[Parts::recovery] + (now - worker.mark);
  worker.mark = now;
}

void Accounting::on(Instant now, WorkerNumber number, const trace::Arrived& event) {
  const auto it = records_.find(event.step);
  if (it == records_.end() || it->second.attempt != event.attempt) return;
  const auto worker = workers_.find(number);
  if (worker == workers_.end() || worker->second.stage >= stages_) return;
  Journey& way = journey(it->second, event.microbatch.value());
  (event.kind == trace::Kind::backward ? way.backward : way.forward)[worker->second.stage].here = now;
}

void Accounting::on(Instant now, WorkerNumber number, const trace::Gone&) {
  Worker& worker = workers_[number];
  if (worker.counted) lose(now, worker);
  worker.counted = false;
}

void Accounting::on(Instant now, WorkerNumber number, const trace::Back& event) {
  Worker& worker = workers_[number];
  if (worker.counted) return;
  worker = Worker{};
  worker.stage = event.stage.value();
  worker.counted = worker.after_view = true;
  worker.step = Step(~std::uint64_t{0});
  worker.opened = worker.mark = now;
}

void Accounting::on(Instant now, WorkerNumber, const trace::Committed& event) {
  newest_commit_ = now;
  Committed& committed = revocable_[event.step];
  committed.tokens = event.tokens;
  committed.parts.resize(stages_);
  StepRecord& step = record(event.step, event.attempt);
  for (const auto& [number, worker] : workers_)
    if (worker.counted && worker.step == event.step) step.busiest = std::max(step.busiest, worker.parts[Parts::busy]);
  for (; open_incidents_ > 0; --open_incidents_) {
    Incident& incident = incidents_[incidents_.size() - open_incidents_];
    incident.to_commit = now - incident.at;
  }
  awaits_work_ = false;
  if (event.step <= furthest_) return;
  furthest_ = event.step;
  for (; behind_ > 0; --behind_) {
    Incident& incident = incidents_[incidents_.size() - behind_];
    incident.to_new = now - incident.at;
  }
}

void Accounting::on(Instant, WorkerNumber, const trace::Saved& event) {
  while (!revocable_.empty() && revocable_.begin()->first <= event.step) {
    // Some workers may not have closed this step yet: theirs is added to what is settled then.
    const Committed& committed = revocable_.begin()->second;
    for (std::uint64_t s = 0; s < stages_; ++s) settled_[s] += committed.parts[s];
    ++steps_;
    tokens_ += committed.tokens;
    revocable_.erase(revocable_.begin());
  }
}

void Accounting::on(Instant, WorkerNumber, const trace::Rewound& event) {
  for (auto it = revocable_.upper_bound(event.step); it != revocable_.end(); it = revocable_.erase(it)) {
    for (std::uint64_t s = 0; s < stages_; ++s) {
      Parts lost;
      lost[Parts::recovery] = it->second.parts[s].total();
      in_vain(it->second.parts[s][Parts::busy], 0);
      settled_[s] += lost;
    }
  }
  records_.clear();
}

void Accounting::on(Instant now, WorkerNumber, const trace::Struck& event) {
  Incident incident;
  incident.at = now;
  incident.what = event.what;
  incidents_.push_back(std::move(incident));
  ++open_incidents_;
  ++behind_;
}

void Accounting::attempt_opened(base::Attempt attempt) {
  if (attempt <= newest_attempt_) return;
  newest_attempt_ = attempt;
  ++attempts_;
  awaits_work_ = true;
  find_cause();
  for (std::size_t i = incidents_.size() - open_incidents_; i < incidents_.size(); ++i) ++incidents_[i].attempts, incidents_[i].to_work.reset();
}

/// What no open event explains is the latest one's, if nothing has followed it yet: it struck when its step was prepared already, which
/// was committed before anybody missed the one that it struck.
void Accounting::find_cause() {
  if (open_incidents_ > 0 || incidents_.empty() || incidents_.back().attempts > 0) return;
  incidents_.back().to_commit.reset();
  incidents_.back().to_new.reset();
  open_incidents_ = 1;
  behind_ = std::max<std::size_t>(behind_, 1);
}

/// To the oldest trouble that no commit has followed: what came after it found its work void already.
void Accounting::in_vain(Duration work, std::uint64_t works) {
  repeated_ = repeated_ + work;
  if (work > Duration()) find_cause();
  if (open_incidents_ == 0) return;
  Incident& incident = incidents_[incidents_.size() - open_incidents_];
  incident.repeated = incident.repeated + work;
  incident.repeated_works += works;
}

void Accounting::lose(Instant now, Worker& worker) {
  settled_[worker.stage][Parts::recovery] = settled_[worker.stage][Parts::recovery] + (now - worker.opened);
  in_vain(worker.parts[Parts::busy], worker.works);
}

void Accounting::close(Instant now, Worker& worker) {
  const auto found = records_.find(worker.step);
  const StepRecord& step = found->second;
  if (step.last && step.last_end > worker.mark) {
    const Instant end = std::min(step.last_end, now);
    Waited waited = wait(step, *step.last, worker.mark, end);
    // What ended the step lay in somebody else's queue: for this worker that is others' work.
    waited.others = waited.others + waited.here + waited.before;
    waited.here = waited.before = Duration();
    add_wait(worker, waited);
    worker.mark = end;
  }
  Parts& parts = worker.parts;
  parts[Parts::reduce] = parts[Parts::reduce] + (now - worker.mark);
  const Duration longer = std::max(Duration(), step.busiest - parts[Parts::busy]);
  parts[Parts::pace] = std::min(parts[Parts::flush], longer);
  parts[Parts::flush] = parts[Parts::flush] - parts[Parts::pace];
  CHECK(parts.total() == now - worker.opened, "a period's parts add up to it");
  const auto committed = revocable_.find(worker.step);
  (committed == revocable_.end() ? settled_ : committed->second.parts)[worker.stage] += parts;
}

void Accounting::add_wait(Worker& worker, const Waited& waited) {
  Parts& parts = worker.parts;
  parts[Parts::network] = parts[Parts::network] + waited.network;
  parts[Parts::flush] = parts[Parts::flush] + waited.others;
  parts[Parts::other] = parts[Parts::other] + waited.here;
  Duration& before = parts[worker.after_view ? Parts::recovery : Parts::reduce];
  before = before + waited.before;
}

Accounting::Waited Accounting::wait(const StepRecord& record, const Item& item, Instant from, Instant to) const {
  Waited out;
  Instant until = to;
  // Walks back in time: gives what lies between `since` and where it stands to `into`.
  const auto back_to = [&](Instant since, Duration& into) {
    if (since == Instant::never()) return;
    since = std::max(since, from);
    if (since >= until) return;
    into = into + (until - since);
    until = since;
  };
  const Journey& way = record.journeys[item.microbatch];
  Duration* lying = &out.here;  // at the waiting worker itself, then at those before it
  const auto hop = [&](const Hop& each) {
    back_to(each.here, *lying);
    back_to(each.made, out.network);
    lying = &out.others;
  };
  std::uint64_t stage = item.stage;
  if (item.kind == trace::Kind::backward)
    for (; stage + 1 < stages_; ++stage) hop(way.backward[stage]);
  for (; stage > 0; --stage) hop(way.forward[stage]);
  if (lying == &out.others) back_to(way.cut, out.others);
  back_to(from, out.before);
  return out;
}

AccountTable Accounting::table() const {
  AccountTable out;
  out.stages = settled_;
  out.steps = steps_ + revocable_.size();
  out.tokens = tokens_;
  for (const auto& [step, committed] : revocable_) {
    out.tokens += committed.tokens;
    for (std::uint64_t s = 0; s < stages_; ++s) out.stages[s] += committed.parts[s];
  }
  for (const Parts& stage : out.stages) out.all += stage;
  if (began_ && newest_commit_ > *began_) out.span = newest_commit_ - *began_;
  out.attempts = attempts_;
  out.incidents = incidents_;
  out.repeated = repeated_;
  return out;
}

}  // namespace stagecoach::observe
