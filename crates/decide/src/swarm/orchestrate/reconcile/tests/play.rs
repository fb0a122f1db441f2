//! Whole lives of clusters: whatever happens, what is declared is what runs in the end.

use herder_model::swarm::{
    Availability, ContainerSpec, Empty, Kind, Ratio, Replicated, ReplicatedJob, RestartPolicy, ServiceMode,
    ServiceSpec, SwarmNodeState, TaskSpec, TaskState, UpdateConfig,
};
use proptest::prelude::*;

use super::notation::SECOND;
use super::world::{BROKEN, World};
use crate::swarm::nodes::members::FENCE;
use crate::swarm::orchestrate::reconcile::Mode;
use crate::swarm::orchestrate::update;

const NODES: usize = 5;

/// Event of a cluster. Numbers are taken modulo what is there.
#[derive(Clone, Debug)]
enum Event {
    Declare(Box<ServiceSpec>),
    Scale(u64),
    Remove,
    Down(usize),
    /// One that is down has ended what must never run twice.
    Off(usize),
    Ready(usize),
    Drain(usize),
    Pause(usize),
    Active(usize),
    Delete(usize),
    Join(usize),
    Schedule,
    /// The nodes of all tasks go one step on with them.
    Work,
    /// The node of this task goes one step on with it.
    Step(usize),
    /// This task ends by itself.
    Fail(usize),
    Wait(u64),
    /// Time passes until something is due.
    Due,
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    Replicated,
    Global,
    ReplicatedJob,
    GlobalJob,
}

fn mode(shape: Shape, count: u64) -> ServiceMode {
    let empty = ServiceMode::default();
    match shape {
        Shape::Replicated => {
            ServiceMode { replicated: Some(Replicated { replicas: Some(count), ..Replicated::default() }), ..empty }
        }
        Shape::Global => ServiceMode { global: Some(Empty::default()), ..empty },
        Shape::ReplicatedJob => {
            let (max_concurrent, total_completions) = (Some(count / 2 + 1), Some(count));
            ServiceMode {
                replicated_job: Some(ReplicatedJob { max_concurrent, total_completions, ..ReplicatedJob::default() }),
                ..empty
            }
        }
        Shape::GlobalJob => ServiceMode { global_job: Some(Empty::default()), ..empty },
    }
}

fn spec(shape: Shape, count: u64, image: &str) -> ServiceSpec {
    let container_spec = Some(ContainerSpec { image: image.into(), ..ContainerSpec::default() });
    let task_template = TaskSpec { container_spec, ..TaskSpec::default() };
    ServiceSpec { name: "web".into(), mode: mode(shape, count), task_template, ..ServiceSpec::default() }
}

fn policies() -> impl Strategy<Value = Option<RestartPolicy>> {
    let conditions = prop::sample::select(vec!["", "any", "on-failure", "none"]);
    let policy = (conditions, prop::option::of(0..20_i64), prop::option::of(0..3_u64), prop::option::of(0..30_i64));
    let policy = policy.prop_map(|(condition, delay, max_attempts, window)| RestartPolicy {
        condition: condition.into(),
        delay: delay.map(|it| it * SECOND.cast_signed()),
        max_attempts,
        window: window.map(|it| it * SECOND.cast_signed()),
        ..RestartPolicy::default()
    });
    prop::option::of(policy)
}

fn updates() -> impl Strategy<Value = Option<UpdateConfig>> {
    let actions = prop::sample::select(vec!["", "pause", "continue", "rollback"]);
    let orders = prop::sample::select(vec!["", "stop-first", "start-first"]);
    let config = (0..4_u64, 0..10_i64, actions, 0..10_i64, 0..4_u8, orders);
    let config = config.prop_map(|(parallelism, delay, action, monitor, quarters, order)| UpdateConfig {
        parallelism,
        delay: delay * SECOND.cast_signed(),
        failure_action: action.into(),
        monitor: monitor * SECOND.cast_signed(),
        max_failure_ratio: Ratio(f64::from(quarters) / 4.0),
        order: order.into(),
        ..UpdateConfig::default()
    });
    prop::option::of(config)
}

fn specs(shape: Shape) -> impl Strategy<Value = ServiceSpec> {
    let images = prop::sample::select(vec!["one", "two", "three", BROKEN]);
    (0..6_u64, images, policies(), updates(), updates()).prop_map(move |(count, image, policy, update, rollback)| {
        let mut spec = spec(shape, count, image);
        spec.task_template.restart_policy = policy;
        (spec.update_config, spec.rollback_config) = (update, rollback);
        spec
    })
}

/// Returns a service that works, and has no restart policy that would leave a slot empty.
fn sound(shape: Shape) -> impl Strategy<Value = ServiceSpec> {
    (specs(shape), any::<bool>()).prop_map(|(mut spec, new)| {
        spec.task_template.restart_policy = None;
        spec.task_template.container_spec.get_or_insert_default().image = if new { "sound" } else { "one" }.into();
        spec
    })
}

fn events(shape: Shape) -> impl Strategy<Value = Vec<Event>> {
    let node = 0..NODES;
    let event = prop_oneof![
        3 => specs(shape).prop_map(|it| Event::Declare(Box::new(it))),
        2 => (0..6_u64).prop_map(Event::Scale),
        1 => Just(Event::Remove),
        3 => node.clone().prop_map(Event::Down),
        3 => node.clone().prop_map(Event::Off),
        3 => node.clone().prop_map(Event::Ready),
        1 => node.clone().prop_map(Event::Drain),
        1 => node.clone().prop_map(Event::Pause),
        2 => node.clone().prop_map(Event::Active),
        1 => node.clone().prop_map(Event::Delete),
        1 => node.prop_map(Event::Join),
        10 => Just(Event::Schedule),
        12 => Just(Event::Work),
        12 => (0..30_usize).prop_map(Event::Step),
        6 => (0..30_usize).prop_map(Event::Fail),
        3 => (0..70_u64).prop_map(Event::Wait),
        8 => Just(Event::Due),
    ];
    prop::collection::vec(event, 1..80)
}

fn happen(world: &mut World, shape: Shape, event: &Event) {
    world.story.push(format!("{event:?}"));
    let tasks = world.tasks();
    match event {
        Event::Declare(spec) => world.declare(ServiceSpec::clone(spec)),
        Event::Scale(count) => {
            let Some(service) = world.service() else { return };
            let spec = ServiceSpec { mode: mode(shape, *count), ..service.service.spec.clone() };
            world.declare(spec);
        }
        Event::Remove => world.remove(Kind::Service, "web"),
        Event::Down(number) => world.node(*number, |it| it.node.status.state = SwarmNodeState::Down),
        Event::Off(number) => world.node(*number, |it| it.fenced_off = it.node.status.state == SwarmNodeState::Down),
        Event::Ready(number) => world.node(*number, |it| {
            (it.node.status.state, it.fenced_off) = (SwarmNodeState::Ready, false);
        }),
        Event::Drain(number) => world.node(*number, |it| it.node.spec.availability = Availability::Drain),
        Event::Pause(number) => world.node(*number, |it| it.node.spec.availability = Availability::Pause),
        Event::Active(number) => world.node(*number, |it| it.node.spec.availability = Availability::Active),
        Event::Delete(number) => world.remove(Kind::Node, &format!("node{number}")),
        Event::Join(number) => world.add_node(*number),
        Event::Schedule => world.schedule(),
        Event::Work => tasks.iter().for_each(|id| {
            world.step(id);
        }),
        Event::Step(number) if !tasks.is_empty() => {
            world.step(&tasks[number % tasks.len()]);
        }
        Event::Fail(number) if !tasks.is_empty() => {
            let task = world.view.tasks[&tasks[number % tasks.len()]].clone();
            let early = task.task.status.state < TaskState::Starting;
            world.report(&task, if early { TaskState::Rejected } else { TaskState::Failed });
        }
        Event::Step(_) | Event::Fail(_) => {}
        Event::Wait(seconds) => world.advance(*seconds),
        Event::Due => {
            if let Some(again) = world.again {
                world.advance(again.since(world.now).as_secs());
            }
        }
    }
}

/// All nodes are well again, and something sound is declared: what must come of it.
fn converges(events: &[Event], shape: Shape, last: &ServiceSpec) {
    let mut world = World::new(NODES);
    for event in events {
        happen(&mut world, shape, event);
        world.settle();
    }
    for number in 0..NODES {
        world.add_node(number);
        world.node(number, |it| {
            it.node.status.state = SwarmNodeState::Ready;
            it.node.spec.availability = Availability::Active;
        });
    }
    world.story.push("all is well".into());
    if world
        .service()
        .is_some_and(|it| can_end(&it.service.spec) && it.service.previous_spec.as_ref().is_none_or(can_end))
    {
        world.run_down();
        holds_its_own(&world);
    }
    world.declare(last.clone());
    world.run_down();
    assert_eq!(world.converged().len(), expected(&world), "{:#?}", world.story);
    world.remove(Kind::Service, "web");
    world.run_down();
    assert_eq!(world.tasks(), [""; 0], "{:#?}", world.story);
}

/// A service of these tasks comes to rest.
fn can_end(spec: &ServiceSpec) -> bool {
    spec.task_template.container_spec.as_ref().is_some_and(|it| it.image != BROKEN)
}

fn expected(world: &World) -> usize {
    let count = match world.mode() {
        Some(Mode::Replicated(count) | Mode::ReplicatedJob { total: count, .. }) => count,
        Some(Mode::Global | Mode::GlobalJob) => NODES as u64,
        None => 0,
    };
    usize::try_from(count).expect("few")
}

/// Checks that services declared before the end of faults run, unless their restart policy or a pause leaves slots
/// empty.
fn holds_its_own(world: &World) {
    let Some(service) = world.service() else { return };
    let policy = service.service.spec.task_template.restart_policy.clone().unwrap_or_default();
    let paused = update::state(service).ends_with("paused");
    let ends = !["", "any"].contains(&policy.condition.as_str()) || policy.max_attempts.is_some_and(|it| it > 0);
    if !paused && !ends {
        assert_eq!(world.converged().len(), expected(world), "{:#?}", world.story);
    }
}

/// Declared once more meanwhile, there is nothing to update.
#[test]
fn tasks_take_over_when_their_update_is_not_known_any_more() {
    let (one, mut two) = (spec(Shape::Global, 0, "one"), spec(Shape::Global, 0, "two"));
    two.update_config = Some(UpdateConfig { order: "start-first".into(), ..UpdateConfig::default() });
    let declare = |it: &ServiceSpec| Event::Declare(Box::new(it.clone()));
    let mut events = vec![declare(&one), Event::Schedule];
    events.extend([Event::Work, Event::Work, Event::Work, Event::Work, declare(&two), declare(&two)]);
    converges(&events, Shape::Global, &two);
}

proptest! {
    #[test]
    fn replicas_converge(events in events(Shape::Replicated), last in sound(Shape::Replicated)) {
        converges(&events, Shape::Replicated, &last);
    }

    #[test]
    fn global_services_converge(events in events(Shape::Global), last in sound(Shape::Global)) {
        converges(&events, Shape::Global, &last);
    }

    #[test]
    fn jobs_converge(events in events(Shape::ReplicatedJob), last in sound(Shape::ReplicatedJob)) {
        converges(&events, Shape::ReplicatedJob, &last);
    }

    #[test]
    fn global_jobs_converge(events in events(Shape::GlobalJob), last in sound(Shape::GlobalJob)) {
        converges(&events, Shape::GlobalJob, &last);
    }

    /// Fenced tasks never run twice: nodes that lose the leader stop them in some time.
    #[test]
    fn what_must_never_run_twice_does_not(events in events(Shape::Replicated)) {
        let mut world = World::new(NODES);
        for mut event in events {
            if let Event::Declare(spec) = &mut event {
                spec.labels = Some([(FENCE.to_owned(), "true".to_owned())].into());
            }
            let comes_back = match &event {
                Event::Ready(number) => Some(*number).filter(|it| world.is_off(*it)),
                _ => None,
            };
            happen(&mut world, Shape::Replicated, &event);
            if let Some(number) = comes_back {
                world.fail_all(number);
            }
            world.settle();
            world.no_slot_runs_twice();
        }
    }

    /// Without faults, an update takes away and adds no more at a time than it says.
    #[test]
    fn an_update_keeps_what_it_promises(
        count in 1..7_u64,
        parallelism in 0..4_u64,
        start_first: bool,
        delay in 0..3_i64,
        steps in prop::collection::vec(0..30_usize, 0..200),
    ) {
        let mut world = World::new(NODES);
        let mut spec = spec(Shape::Replicated, count, "one");
        world.declare(spec.clone());
        world.run_down();
        let order = if start_first { "start-first" } else { "stop-first" }.into();
        spec.update_config =
            Some(UpdateConfig { parallelism, order, delay: delay * SECOND.cast_signed(), ..UpdateConfig::default() });
        spec.task_template.force_update = 1;
        world.declare(spec);
        world.settle();
        let at_once = if parallelism == 0 { count } else { parallelism };
        for step in steps {
            let tasks = world.tasks();
            world.schedule();
            world.step(&tasks[step % tasks.len()]);
            world.settle();
            // As nodes see it: what shall stop runs until it has.
            let running = world.view.tasks.values().filter(|it| it.task.status.state == TaskState::Running).count() as u64;
            let ahead = world.view.tasks.values().filter(|it| it.ahead).count() as u64;
            prop_assert!(ahead <= at_once && (parallelism > 0 || ahead == 0), "{:#?}", world.story);
            let leaving = world.view.tasks.values().filter(|it| it.task.status.state == TaskState::Running && it.task.desired_state == TaskState::Shutdown).count() as u64;
            if start_first {
                prop_assert!(running - leaving >= count, "{:#?}", world.story);
            } else {
                prop_assert!(running <= count, "{:#?}", world.story);
                prop_assert!(running - leaving >= count.saturating_sub(at_once), "{:#?}", world.story);
            }
            if step % 5 == 0 {
                world.advance(1);
            }
        }
        world.run_down();
        prop_assert_eq!(world.converged().len() as u64, count);
        let status = world.service().and_then(|it| it.service.update_status.clone()).unwrap_or_default();
        prop_assert_eq!(status.message, "update completed");
    }
}
