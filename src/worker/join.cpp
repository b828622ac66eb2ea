// The worker's dealings with the coordinator and with its links: joining, the assignment, views.
#include "digest/digest.h"
#include "worker/brain.h"

namespace stagecoach::worker {

using base::Duration;
using base::Instant;
using base::PeerId;

namespace {
constexpr Duration kLinkTime = Duration::seconds(8);           // for all links of a view to come up: dial, retry, dial
constexpr Duration kRedialMember = Duration::milliseconds(500);
constexpr Duration kTelemetryEvery = Duration::seconds(1);
constexpr Duration kStrangerTime = Duration::seconds(30);       // a neighbour's view and ours may be this far apart, and no more
constexpr Duration kCoordinatorSilence = Duration::seconds(60);

/// 250 ms, 500 ms, … 4 s.
Duration backoff(std::uint32_t tries) { return Duration::milliseconds(250ll << std::min(tries, 4u)); }
}  // namespace

void Brain::dial_coordinator() {
  redial_at_ = Instant::never();
  ++dials_;
  effects_.push_back(wire::Dial{options_.coordinator, options_.coordinator_addresses});
}

void Brain::on_link_up(const wire::LinkIsUp& event) {
  up_.insert(event.peer);
  if (event.peer != options_.coordinator && !stage_of(event.peer)) strangers_[event.peer] = now_;
  if (event.peer == options_.coordinator) {
    dials_ = 0;
    redial_at_ = give_up_at_ = Instant::never();
    send_hello();
    return;
  }
  if (phase_ == Phase::in_view && !stage_of(event.peer)) {
    // Members only ever leave in this form of the protocol: whoever is none now is evicted, or a stranger.
    effects_.push_back(wire::CloseLink{event.peer, "not a neighbour in the present view"});
    return;
  }
  if (const auto it = outbox_.find(event.peer); it != outbox_.end()) {
    for (auto& message : it->second) effects_.push_back(wire::Send{event.peer, std::move(message)});
    outbox_.erase(it);
  }
  try_offers();
  for (const auto& [stage, view] : views_)
    for (const auto& member : view.members)
      if (member.peer != options_.self && !is_up(member.peer)) return;
  links_due_ = Instant::never();
}

void Brain::on_link_down(const wire::LinkIsDown& event) {
  const bool was_up = up_.erase(event.peer) > 0;
  strangers_.erase(event.peer);
  if (event.peer == options_.coordinator) return on_coordinator_down(event);
  if (phase_ != Phase::in_view || !stage_of(event.peer)) return;
  if (was_up) {
    trouble(wire::TroubleKind::link_down, event.peer, link::to_string(event.reason) + ": " + event.text);
  } else if (links_due_ == Instant::never()) {
    links_due_ = now_ + kLinkTime;
  } else {
    redial_members_at_ = now_ + kRedialMember;  // a dial failed and there is time left: the peer may not have listened yet
  }
}

void Brain::on_coordinator_down(const wire::LinkIsDown& event) {
  if (event.reason == link::DownReason::wrong_identity)
    return exit(1, "the coordinator proved another key than the link names (" + event.text +
                       "): get the link again from whoever started the run");
  outgoing_.reset();  // what was under way is lost; the coordinator asks again
  outgoing_due_ = Instant::never();
  if (give_up_at_ == Instant::never()) give_up_at_ = now_ + kCoordinatorSilence;
  redial_at_ = now_ + backoff(dials_);
  note("no link to the coordinator (" + link::to_string(event.reason) + ": " + event.text + "), dialling again");
}

void Brain::send_hello() {
  wire::Hello hello;
  hello.run = run_;
  hello.incarnation = options_.incarnation;
  hello.in_view = phase_ == Phase::in_view;
  hello.version = version_;
  hello.attempt = attempt_;
  hello.numerics_class = ready_.numerics_class;
  hello.addresses = options_.own_addresses;
  send_coordinator(hello);
  // Reports are state: the coordinator may have missed them with the old link.
  if (phase_ == Phase::ready) send_coordinator(wire::Ready{version_, ready_.numerics_class});
  for (auto& [step, books] : books_)
    if (books.prepared.step == step) send_coordinator(books.prepared);
  if (!troubles_.empty()) send_troubles();
}

void Brain::on_coordinator_message(wire::Message& message) {
  const auto current = [&](base::Term term) {
    if (term < term_) return false;  // a coordinator that was replaced (B10)
    term_ = term;
    return true;
  };
  if (auto* assign = std::get_if<wire::Assign>(&message)) {
    if (current(assign->term)) on_assign(*assign);
  } else if (auto* view = std::get_if<wire::View>(&message)) {
    if (current(view->term)) on_view(*view);
  } else if (auto* lease = std::get_if<wire::Lease>(&message)) {
    if (current(lease->term) && lease->attempt == attempt_ && phase_ == Phase::in_view) take_lease(*lease);
  } else if (auto* commit = std::get_if<wire::Commit>(&message)) {
    if (current(commit->term) && phase_ == Phase::in_view) on_commit(*commit);
  } else if (auto* save = std::get_if<wire::SaveRequest>(&message)) {
    if (current(save->term) && phase_ == Phase::in_view) on_save_request(*save);
  } else if (auto* evicted = std::get_if<wire::Evicted>(&message)) {
    if (current(evicted->term) && evicted->incarnation == options_.incarnation) exit(4, evicted->reason);
  } else if (auto* finish = std::get_if<wire::Finish>(&message)) {
    if (current(finish->term)) exit(0, finish->reason);
  } else {
    note(std::string("the coordinator sent ") + wire::name_of(message) + ", which is not for a worker");
  }
}

void Brain::on_assign(wire::Assign& assign) {
  if (phase_ != Phase::joining) {
    // After a new link the coordinator may have given our place away. A repeat of what we are already is no news: hello told.
    if (phase_ != Phase::in_view && (assign.stage.value() != stage_ || assign.version != assigned_version_))
      exit(4, "the place of this worker was given away while it had no link to the coordinator: start it again");
    return;
  }
  std::string why;
  if (!model::parse_canonical_text(assign.config_text, config_, why))
    return fail("the coordinator's config cannot be read (" + why + "): it runs another version of stagecoach");
  if (digest::sha256(assign.config_text) != static_cast<const base::Bytes32&>(assign.config_id))
    return fail("the coordinator's config does not match its ConfigId");
  split_.clear();
  std::int64_t first = 0;
  for (std::uint64_t end : assign.split_ends) {
    split_.push_back({first, static_cast<std::int64_t>(end)});
    first = static_cast<std::int64_t>(end);
  }
  if (split_.empty() || assign.stage.value() >= split_.size() || first != config_.model.layers ||
      digest::sha256(model::canonical_text(split_)) != assign.layout_id)
    return fail("the coordinator's split of the layers does not match its LayoutId");
  run_ = assign.run;
  stage_ = assign.stage.value();
  version_ = assigned_version_ = assign.version;
  phase_ = Phase::preparing;
  note("assigned to stage " + std::to_string(stage_) + " of " + std::to_string(split_.size()) + ", layers " +
       std::to_string(split_[stage_].first) + " to " + std::to_string(split_[stage_].last - 1) + ", from version " +
       std::to_string(version_.value()));
  effects_.push_back(Prepare{std::move(assign), config_, split_[stage_], window_->versions_kept()});
}

void Brain::on_prepare_done(PrepareDone& event) {
  if (phase_ != Phase::preparing) return;
  if (event.error) return fail("could not get ready for stage " + std::to_string(stage_) + ": " + event.error->message);
  ready_ = std::move(event);
  phase_ = Phase::ready;
  telemetry_due_ = now_ + kTelemetryEvery;
  send_coordinator(wire::Ready{version_, ready_.numerics_class});
}

void Brain::on_view(wire::View& view) {
  if ((phase_ != Phase::ready && phase_ != Phase::in_view) || view.attempt <= attempt_) return;
  bool member = false;
  for (const auto& stage : view.stages) {
    if (stage.stage.value() != stage_) continue;
    for (const auto& m : stage.members) member |= m.peer == options_.self && m.incarnation == options_.incarnation;
  }
  if (!member) return note("a view without this worker in it: waiting to be told why");
  if (const base::Step base_step(applying_ ? applying_->step : base::Step(version_.value())); view.committed != base_step)
    return fail("the coordinator's newest commit is step " + std::to_string(view.committed.value()) + ", this worker's is step " +
                std::to_string(base_step.value()) + ": a damaged record; resume the run from its newest checkpoint");
  note("attempt " + std::to_string(view.attempt.value()) + ": " + view.reason);
  attempt_ = view.attempt;
  phase_ = Phase::in_view;
  // B8: the books of all open steps are void, results included; the step that is being applied is not open any more.
  std::erase_if(books_, [&](const auto& entry) { return !applying_ || entry.first != applying_->step; });
  drop_open_work();
  leases_.clear();
  outbox_.clear();
  outstanding_.clear();
  troubles_.clear();
  troubles_due_ = Instant::never();
  urgent(VoidAttemptsBefore{attempt_}, base::Step{});
  install_members(view);
  links_due_ = Instant::never();  // new partners get the whole time for dialling
  dial_members();
  open_steps();
  unpark();
}

void Brain::install_members(const wire::View& view) {
  views_.clear();
  for (const auto& stage : view.stages) views_[stage.stage.value()] = stage;
  std::set<PeerId> wanted{options_.coordinator};
  for (const auto& [stage, members] : views_)
    for (const auto& member : members.members) wanted.insert(member.peer);
  for (const PeerId& peer : std::set<PeerId>(up_))
    // A neighbour of the next view may have dialled before we hear of it: a stranger that is new keeps its time.
    if (!wanted.contains(peer) && !strangers_.contains(peer)) effects_.push_back(wire::CloseLink{peer, "not a neighbour in the new view"});
  std::erase_if(strangers_, [&](const auto& entry) { return wanted.contains(entry.first); });
}

void Brain::close_strangers() {
  for (const auto& [peer, since] : strangers_)
    if (now_ - since >= kStrangerTime) effects_.push_back(wire::CloseLink{peer, "in no view of this worker's neighbourhood"});
}

void Brain::dial_members() {
  redial_members_at_ = Instant::never();
  bool missing = false;
  for (const auto& [stage, view] : views_) {
    for (const auto& member : view.members) {
      if (member.peer == options_.self || is_up(member.peer)) continue;
      missing = true;
      // Of two workers the one with the smaller key dials: no two links cross.
      if (options_.self < member.peer) effects_.push_back(wire::Dial{member.peer, member.addresses});
    }
  }
  if (!missing) links_due_ = Instant::never();
  else if (links_due_ == Instant::never() || now_ >= links_due_) links_due_ = now_ + kLinkTime;
}

}  // namespace stagecoach::worker
