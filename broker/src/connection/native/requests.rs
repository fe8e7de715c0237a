//! Control frames of an open connection: each request gets exactly one answer.

use std::sync::Arc;

use leveret_journal::Position;
use leveret_protocol::{
    Bind, Closed, Closes, Consume, Control, DeclareExchange, DeclareQueue, Done, Failed, Get, OpenChannel,
    QueueName, ROUTE_ALIASES_MAX, RegisterRoute, ReplyCode, RoutingKey, Table, Unbind,
};

use super::super::Violation;
use super::super::outbox::ConsumerOutbox;
use super::super::protocol::{Flow, Session};
use super::encoder::encode_delivery;
use super::session::{Alias, NativeSession, OpenChannel as Open};
use super::{Consumer, encoded};
use crate::auth;
use crate::channel::{self, Channel, ChannelError};
use crate::queue::{ConsumerSpec, Counts, Credit, Settings, Verb};
use crate::topology::{self, BindingDefinition, TopologyError};

/// What a request came to: the answer, and the position that must be durable before it is given.
struct Answer {
    done: Done,
    position: Option<Position>,
}

impl NativeSession {
    /// Carries out one control frame.
    pub(super) fn request(&mut self, number: u16, control: Control) -> Result<Flow, Violation> {
        let operation = control.name();
        let Some(request) = request_number(&control) else { return self.connection_frame(number, control) };
        let outcome = match control {
            Control::OpenChannel(open) => {
                self.open_channel(number, &open);
                return Ok(Flow::Continue);
            }
            Control::CloseChannel(_) => Ok(self.close_channel(number, request)?),
            control => {
                let Some(open) = self.channels.get_mut(&number) else {
                    self.check_closed(number)?;
                    return Ok(Flow::Continue);
                };
                match control {
                    Control::Consume(consume) => {
                        self.consume(number, &consume);
                        return Ok(Flow::Continue);
                    }
                    Control::Get(get) => {
                        self.get(number, &get);
                        return Ok(Flow::Continue);
                    }
                    Control::Cancel(cancel) => open
                        .channel
                        .cancel(cancel.consumer, &mut self.common.work)
                        .map(|()| Answer::of(request)),
                    Control::RegisterRoute(route) => {
                        self.register_route(number, route);
                        return Ok(Flow::Continue);
                    }
                    other => self.topology_request(request, other).map_err(ChannelError::from),
                }
            }
        };
        match outcome {
            Ok(answer) => self.common.outbox.send(number, answer.done, answer.position),
            Err(error) => self.refuse(number, request, operation, error.code(), &error),
        }
        Ok(Flow::Continue)
    }

    fn refuse(&self, channel: u16, request: u32, operation: &str, code: ReplyCode, text: &impl ToString) {
        let (operation, text) = (operation.to_owned(), text.to_string());
        self.common.outbox.send(
            channel,
            Failed { request, operation, code, text, closes: Closes::Nothing },
            None,
        );
    }

    fn connection_frame(&mut self, number: u16, control: Control) -> Result<Flow, Violation> {
        match control {
            other if number != 0 => {
                let text = format!("{} does not belong on a channel", other.name());
                Err(Violation::of_connection(ReplyCode::UnexpectedFrame, text))
            }
            Control::Close(_) => {
                self.close();
                self.common.send_behind_all(encoded(0, Closed {}).freeze());
                Ok(Flow::Closed)
            }
            Control::Closed(_) => Ok(Flow::Closed),
            other => {
                let text = format!("{} does not belong here: the connection is open already", other.name());
                Err(Violation::of_connection(ReplyCode::UnexpectedFrame, text))
            }
        }
    }

    fn open_channel(&mut self, number: u16, open: &OpenChannel) {
        let problem = if number == 0 || number > self.channels_max {
            format!("channel {number} is not one of 1 to {}", self.channels_max)
        } else if self.channels.contains_key(&number) {
            format!("channel {number} is open already")
        } else {
            self.closed.remove(&number);
            let consumers_max = self.common.context.limits.consumers_max;
            let channel =
                Channel::new(Arc::clone(&self.common.vhost), self.common.id, open.confirms, consumers_max);
            self.channels.insert(number, Open { channel, aliases: rustc_hash::FxHashMap::default() });
            return self.common.outbox.send(number, Answer::of(open.request).done, None);
        };
        self.refuse(number, open.request, "OpenChannel", ReplyCode::ChannelError, &problem);
    }

    fn close_channel(&mut self, number: u16, request: u32) -> Result<Answer, Violation> {
        match self.channels.remove(&number) {
            Some(open) => open.channel.close(&mut self.common.work),
            // The broker has closed it meanwhile, which comes to the same.
            None => self.check_closed(number)?,
        }
        Ok(Answer::of(request))
    }

    fn consume(&mut self, number: u16, consume: &Consume) {
        let Some(open) = self.channels.get_mut(&number) else { return };
        let credit = match (consume.prefetch, consume.no_ack) {
            (0, _) => Credit::Unlimited,
            (messages, true) => Credit::Counted(messages),
            (messages, false) => Credit::Unsettled(messages),
        };
        let spec = ConsumerSpec {
            outlet: Arc::clone(&self.common.outbox.outlet),
            priority: consume.priority,
            exclusive: consume.exclusive,
            no_ack: consume.no_ack,
            credit,
        };
        let outbox = Arc::clone(&self.common.outbox);
        let consumer = Consumer { channel: number, number: consume.consumer };
        let recipient = ConsumerOutbox { outbox: Arc::clone(&outbox), consumer };
        let consume_from = channel::Consume {
            number: consume.consumer,
            queue: &consume.queue,
            spec,
            recipient: Arc::new(recipient),
        };
        // The answer is sent from within, so that it comes before the first delivery.
        let admitted = || outbox.send(number, Answer::of(consume.request).done, None);
        if let Err(error) = open.channel.consume(consume_from, &mut self.common.work, admitted) {
            self.refuse(number, consume.request, "Consume", error.code(), &error);
        }
    }

    fn get(&mut self, number: u16, get: &Get) {
        let Some(open) = self.channels.get_mut(&number) else { return };
        // Without an acknowledgement it would be gone before it is known to fit, so it is settled when it does.
        match open.channel.get(get.consumer, &get.queue, false, &mut self.common.work) {
            Ok(Some(got)) => {
                let mut answer = Answer::of(get.request);
                answer.done.found = Some(true);
                answer.done.messages = Some(got.ready_left);
                // In one piece, so that nothing comes between the answer and its message.
                let mut frames = encoded(number, answer.done);
                let bytes = encode_delivery(number, get.consumer, &got.delivery, &mut frames);
                let tag = got.delivery.tag;
                if bytes <= self.frame_bytes_max {
                    if get.no_ack {
                        let ranges = [(tag, tag)];
                        let _ = open.channel.settle(get.consumer, &ranges, &Verb::Ack, &mut self.common.work);
                    }
                    return self.common.outbox.send_delivery(frames.freeze(), got.delivery.after);
                }
                let _ =
                    open.channel.settle(get.consumer, &[(tag, tag)], &Verb::Release, &mut self.common.work);
                let text = format!(
                    "the message takes a frame of {bytes} bytes, and this connection has agreed on {} at most",
                    self.frame_bytes_max
                );
                self.refuse(number, get.request, "Get", ReplyCode::ContentTooLarge, &text);
            }
            Ok(None) => {
                let mut answer = Answer::of(get.request);
                answer.done.found = Some(false);
                answer.done.messages = Some(0);
                self.common.outbox.send(number, answer.done, None);
            }
            Err(error) => self.refuse(number, get.request, "Get", error.code(), &error),
        }
    }

    fn register_route(&mut self, number: u16, route: RegisterRoute) {
        let RegisterRoute { request, alias, exchange, routing_key } = route;
        if alias >= ROUTE_ALIASES_MAX {
            let text = format!("alias {alias} is not below {ROUTE_ALIASES_MAX}");
            self.refuse(number, request, "RegisterRoute", ReplyCode::PreconditionFailed, &text);
        } else if let Some(open) = self.channels.get_mut(&number) {
            let (exchange, routing_key) = (exchange.to_string(), routing_key.to_string());
            open.aliases.insert(alias, Alias { exchange, routing_key });
            self.common.outbox.send(number, Answer::of(request).done, None);
        }
    }

    fn topology_request(&mut self, request: u32, control: Control) -> Result<Answer, TopologyError> {
        let answer = Answer::of(request);
        match control {
            Control::DeclareExchange(declare) => self.declare_exchange(declare),
            Control::DeleteExchange(delete) => {
                Ok(answer.after(self.common.vhost.delete_exchange(&delete.exchange, delete.if_unused)?))
            }
            Control::DeclareQueue(declare) => self.declare_queue(declare),
            Control::DeleteQueue(delete) => {
                let (messages, position) = self.common.vhost.delete_queue(
                    &delete.queue,
                    delete.if_unused,
                    delete.if_empty,
                    self.common.id,
                )?;
                let mut answer = answer.after(position);
                answer.done.messages = Some(messages);
                Ok(answer)
            }
            Control::PurgeQueue(purge) => {
                let queue = self.common.vhost.queue(purge.queue.as_str(), self.common.id)?;
                let purged = queue.purge(&mut self.common.work);
                self.common.vhost.finish(&mut self.common.work);
                let mut answer = answer.after(self.common.context.store.end());
                answer.done.messages = Some(purged.unwrap_or(0));
                Ok(answer)
            }
            Control::Bind(Bind { source, destination, routing_key, arguments, .. }) => {
                let binding = self.binding(source, destination, routing_key, arguments);
                Ok(answer.after(self.common.vhost.bind(&binding, self.common.id)?))
            }
            Control::Unbind(Unbind { source, destination, routing_key, arguments, .. }) => {
                let binding = self.binding(source, destination, routing_key, arguments);
                Ok(answer.after(self.common.vhost.unbind(&binding, self.common.id)?))
            }
            // Everything else that carries a request number was taken before.
            _ => Ok(answer),
        }
    }

    fn binding(
        &self,
        source: leveret_protocol::ExchangeName,
        destination: leveret_protocol::Destination,
        routing_key: RoutingKey,
        arguments: Table,
    ) -> BindingDefinition {
        BindingDefinition {
            vhost: self.common.vhost.name.clone(),
            source,
            destination,
            routing_key,
            arguments,
        }
    }

    fn declare_exchange(&mut self, declare: DeclareExchange) -> Result<Answer, TopologyError> {
        let DeclareExchange { request, exchange, kind, passive, durable, auto_delete, internal, arguments } =
            declare;
        if passive {
            self.common.vhost.check_exchange(&exchange)?;
            return Ok(Answer::of(request));
        }
        let asked =
            topology::DeclareExchange::new(exchange, &kind, durable, auto_delete, internal, &arguments)?;
        Ok(Answer::of(request).after(self.common.vhost.declare_exchange(asked)?))
    }

    fn declare_queue(&mut self, declare: DeclareQueue) -> Result<Answer, TopologyError> {
        let DeclareQueue { request, queue: name, passive, durable, exclusive, auto_delete, arguments } =
            declare;
        let (queue, counts, position) = if passive {
            let queue = self.common.vhost.queue(name.as_str(), self.common.id)?;
            let counts = queue.counts();
            (queue, counts, None)
        } else {
            let settings = Settings::from_arguments(durable, exclusive, auto_delete, &arguments)?;
            let asked = topology::DeclareQueue { name, settings };
            let (queue, counts, position) = self.common.vhost.declare_queue(
                asked,
                &generated_name()?,
                self.common.id,
                &mut self.common.work,
            )?;
            self.common.vhost.finish(&mut self.common.work);
            (queue, counts, Some(position))
        };
        let Counts { ready, consumers, .. } = counts;
        let mut answer = Answer { position, ..Answer::of(request) };
        answer.done.queue = Some(queue.name.clone());
        answer.done.messages = Some(ready);
        answer.done.consumers = Some(consumers as u32);
        Ok(answer)
    }
}

impl Answer {
    fn of(request: u32) -> Self {
        let done = Done { request, queue: None, messages: None, consumers: None, found: None };
        Self { done, position: None }
    }

    fn after(self, position: Position) -> Self {
        Self { position: Some(position), ..self }
    }
}

/// A name for a queue that nobody can guess, so that nobody can put anything into it who was not told.
fn generated_name() -> Result<QueueName, TopologyError> {
    let nonce = auth::nonce().map_err(|error| {
        tracing::error!(%error, "the system gave no randomness");
        TopologyError::NoName
    })?;
    Ok(QueueName::new(format!("amq.gen-{nonce}"))?)
}

fn request_number(control: &Control) -> Option<u32> {
    Some(match control {
        Control::OpenChannel(frame) => frame.request,
        Control::CloseChannel(frame) => frame.request,
        Control::DeclareExchange(frame) => frame.request,
        Control::DeleteExchange(frame) => frame.request,
        Control::DeclareQueue(frame) => frame.request,
        Control::DeleteQueue(frame) => frame.request,
        Control::PurgeQueue(frame) => frame.request,
        Control::Bind(frame) => frame.request,
        Control::Unbind(frame) => frame.request,
        Control::Consume(frame) => frame.request,
        Control::Cancel(frame) => frame.request,
        Control::Get(frame) => frame.request,
        Control::RegisterRoute(frame) => frame.request,
        _ => return None,
    })
}
