//! Connections through one bottleneck on a virtual clock.
//!
//! Law: time is the next event's; the wall clock is read once, for an origin that nothing depends
//! on. All senders are on the near side of the bottleneck.

use std::time::{Duration, Instant};

use super::link::{Link, Parcel, Shape};
use super::peers::{Law, Peer, pair};
use super::traffic::{Load, SLOT, Traffic};

/// Milliseconds.
pub(crate) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// One connection to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) law: Law,
    pub(crate) load: Load,
    /// Period of one-byte echoes on a stream of higher priority.
    pub(crate) echo: Option<Duration>,
    pub(crate) starts: Duration,
}

impl Flow {
    pub(crate) fn bulk(law: Law) -> Self {
        Self { law, load: Load::Bulk, echo: None, starts: Duration::ZERO }
    }
}

/// From then on the link looks so.
pub(crate) type Change = (Duration, Shape);

/// A run to be.
pub(crate) struct Plan {
    pub(crate) shape: Shape,
    pub(crate) flows: Vec<Flow>,
    pub(crate) changes: Vec<Change>,
    pub(crate) lasts: Duration,
    pub(crate) seed: u64,
}

struct Running {
    near: Peer,
    far: Peer,
    traffic: Traffic,
    starts: Instant,
}

/// A run that is over.
pub(crate) struct World {
    origin: Instant,
    forward: Link,
    back: Link,
    flows: Vec<Running>,
}

/// The way back has the delay, the loss and the cuts, and no bottleneck.
fn returning(shape: Shape) -> Shape {
    Shape { rate: 10_000_000_000, queue: 1 << 30, ..shape }
}

impl World {
    /// Runs the plan to its end.
    pub(crate) fn run(plan: &Plan) -> Self {
        let origin = Instant::now();
        let mut world = Self {
            origin,
            forward: Link::new(plan.shape, plan.seed),
            back: Link::new(returning(plan.shape), plan.seed.wrapping_add(1 << 32)),
            flows: Vec::new(),
        };
        for (seed, flow) in (plan.seed..).zip(&plan.flows) {
            let starts = origin + flow.starts;
            let (near, far) = pair(flow.law, seed, starts);
            let traffic = Traffic::new(flow.load, flow.echo);
            world.flows.push(Running { near, far, traffic, starts });
        }
        let mut changes = plan.changes.iter().peekable();
        let mut now = origin;
        world.wake(now);
        while let Some(next) = world.next(now) {
            let change = changes.peek().map(|(at, _)| origin + *at);
            now = now.max(change.map_or(next, |at| at.min(next)));
            if now > origin + plan.lasts {
                break;
            }
            if change.is_some_and(|at| at <= now)
                && let Some((_, shape)) = changes.next()
            {
                world.forward.shape = *shape;
                world.back.shape = returning(*shape);
            }
            world.step(now);
        }
        world
    }

    fn next(&mut self, now: Instant) -> Option<Instant> {
        let links = [self.forward.next(), self.back.next()];
        let peers =
            self.flows.iter_mut().filter(|flow| flow.near.lost.is_none()).flat_map(|flow| {
                let started = flow.starts > now;
                let own = if flow.near.connected { flow.traffic.next() } else { None };
                let starts = started.then_some(flow.starts);
                let timer = if started { None } else { flow.near.next() };
                [starts, timer, flow.far.next(), own]
            });
        links.into_iter().chain(peers).flatten().min()
    }

    fn step(&mut self, now: Instant) {
        while let Some(parcel) = self.forward.arrived(now) {
            let flow = &mut self.flows[parcel.flow];
            flow.far.take(now, parcel.data);
            self.far(now, parcel.flow);
        }
        while let Some(parcel) = self.back.arrived(now) {
            let flow = &mut self.flows[parcel.flow];
            flow.near.take(now, parcel.data);
            self.near(now, parcel.flow);
        }
        self.wake(now);
    }

    /// Gives a turn to everyone whose time it is.
    fn wake(&mut self, now: Instant) {
        for index in 0..self.flows.len() {
            let flow = &mut self.flows[index];
            let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
            if flow.starts <= now {
                let own = flow.near.connected && due(flow.traffic.next());
                if own || !flow.near.connected || due(flow.near.next()) {
                    self.near(now, index);
                }
            }
            if due(self.flows[index].far.next()) {
                self.far(now, index);
            }
        }
    }

    fn near(&mut self, now: Instant, index: usize) {
        let Running { near, traffic, .. } = &mut self.flows[index];
        near.turn(now);
        if near.connected
            && near.lost.is_none()
            && let Some(connection) = &mut near.connection
        {
            traffic.send(now, connection);
        }
        near.give(now, |data| self.forward.send(now, Parcel { flow: index, data }));
    }

    fn far(&mut self, now: Instant, index: usize) {
        let Running { far, traffic, .. } = &mut self.flows[index];
        far.turn(now);
        if far.connected
            && far.lost.is_none()
            && let Some(connection) = &mut far.connection
        {
            traffic.receive(now - self.origin, connection);
        }
        far.give(now, |data| self.back.send(now, Parcel { flow: index, data }));
    }

    /// Why the connection ended, if it did.
    pub(crate) fn died(&self, flow: usize) -> Option<&str> {
        let flow = &self.flows[flow];
        flow.near.lost.as_deref().or(flow.far.lost.as_deref())
    }

    /// Bits a second that reached the application between two times.
    pub(crate) fn goodput(&self, flow: usize, from: Duration, to: Duration) -> f64 {
        let slot = |at: Duration| (at.as_micros() / SLOT.as_micros()) as usize;
        let got = &self.flows[flow].traffic.got;
        let bytes: u64 = got.iter().take(slot(to)).skip(slot(from)).sum();
        bytes as f64 * 8.0 / (to - from).as_secs_f64()
    }

    /// Bytes received, by slot.
    pub(crate) fn slots(&self, flow: usize) -> &[u64] {
        &self.flows[flow].traffic.got
    }

    /// When so many bytes had been received.
    pub(crate) fn when(&self, flow: usize, bytes: u64) -> Option<Duration> {
        let mut sum = 0;
        let slot = self.slots(flow).iter().position(|got| {
            sum += got;
            sum >= bytes
        });
        slot.map(|slot| SLOT * (slot as u32 + 1))
    }

    /// When something was next received.
    pub(crate) fn next_after(&self, flow: usize, from: Duration) -> Option<Duration> {
        let slots = self.slots(flow).iter().enumerate();
        let mut after = slots.map(|(slot, got)| (SLOT * slot as u32, *got));
        after.find(|(at, got)| *at >= from && *got > 0).map(|(at, _)| at)
    }

    /// The time after `from` at which the flow first holds `rate` bits a second over `span`.
    pub(crate) fn reaches(
        &self,
        flow: usize,
        from: Duration,
        rate: f64,
        span: Duration,
    ) -> Option<Duration> {
        let mut at = from;
        while at < from + Duration::from_secs(60) {
            if self.goodput(flow, at, at + span) >= rate {
                return Some(at - from);
            }
            at += SLOT;
        }
        None
    }

    /// Time packets waited in the bottleneck between two times: median and 99th percentile.
    pub(crate) fn waits(&self, from: Duration, to: Duration) -> (Duration, Duration) {
        let within = |at: Instant| (from..to).contains(&(at - self.origin));
        let waits = self.forward.waits.iter().filter(|(at, _)| within(*at));
        percentiles(waits.map(|(_, wait)| Duration::from_secs_f32(*wait)).collect())
    }

    /// Time an echo took, for those asked between two times: median and 99th percentile.
    pub(crate) fn echoes(&self, flow: usize, from: Duration, to: Duration) -> (Duration, Duration) {
        let within = |at: Instant| (from..to).contains(&(at - self.origin));
        let echoes = self.flows[flow].traffic.echoes.iter().filter(|(at, _)| within(*at));
        percentiles(echoes.map(|(_, took)| *took).collect())
    }

    /// Share of the packets offered that the full queue turned away.
    pub(crate) fn overflow(&self) -> f64 {
        self.forward.overflowed as f64 / self.forward.offered.max(1) as f64
    }

    /// What a failed run looks like: goodput by second, the sender's window and round trip.
    pub(crate) fn story(&self, flow: usize, lasts: Duration) -> String {
        let seconds = 0..lasts.as_secs();
        let rates = seconds.map(|second| {
            let from = Duration::from_secs(second);
            format!("{:.1}", self.goodput(flow, from, from + Duration::from_secs(1)) / 1e6)
        });
        let near = &self.flows[flow].near;
        format!(
            "Mbit/s by second: {}; window {} rtt {:?} died {:?}",
            rates.collect::<Vec<_>>().join(" "),
            near.window(),
            near.rtt(),
            self.died(flow)
        )
    }
}

fn percentiles(mut values: Vec<Duration>) -> (Duration, Duration) {
    values.sort_unstable();
    let at = |share: usize| values.get((values.len() * share / 100).min(values.len().max(1) - 1));
    (at(50).copied().unwrap_or_default(), at(99).copied().unwrap_or_default())
}
